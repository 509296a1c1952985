/* plain DIR MIB STRIDE: one process with one range of memory. */
#include "victim.h"

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	const char *dir = argv[1];
	size_t nr_pages = strtoul(argv[2], NULL, 0) * PAGES_PER_MIB;
	size_t stride = strtoul(argv[3], NULL, 0);
	struct tally tally = {0};

	char *addr = map_pages(nr_pages);
	fill_range(addr, nr_pages, 1);
	publish(dir, "ready", "");
	await(dir, "go");
	check_range(addr, nr_pages, 1, stride, &tally);
	report(dir, "plain", &tally);
	return tally.nr_wrong != 0;
}
