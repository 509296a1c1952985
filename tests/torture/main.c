/*
 * torture image FILE SEED ARENAS MIB UNIT: write the pages of the image to
 * FILE, and print the address and the length of every run of them.
 *
 * torture run DIR PID SEED ARENAS MIB UNIT SECONDS OPERATIONS: be the process
 * PID of that image, hand over to the daemon that listens in DIR, and go on
 * for so long.  UNIT is 1, or 512 for memory of hugetlbfs.  Exits with 1 after
 * the first wrong page, and with 2 when a thread has made no progress for
 * HANG_S.
 */
#include "torture.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>

/* A child that is filled fault by fault may take half of that. */
#define HANG_S 40

struct options options = {.operations = ""};
struct arena arenas[MAX_ARENAS];

static struct timespec began;

static double seconds_passed(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec - began.tv_sec + (now.tv_nsec - began.tv_nsec) / 1e9;
}

/* ---- the image ---- */

static void write_arena(FILE *file, unsigned int arena)
{
	uint64_t words[WORDS_PER_PAGE];
	size_t nr = 0;

	for (size_t page = 0; page <= options.nr_pages; page++) {
		uint64_t key =
			page < options.nr_pages ? image_key(arena, page) : 0;

		if (key) {
			fill_page(words, key);
			if (fwrite(words, PAGE_SIZE, 1, file) != 1)
				exit(2);
			nr++;
		} else if (nr) {
			printf("%p %zu\n",
			       arena_start(arena) + (page - nr) * PAGE_SIZE,
			       nr);
			nr = 0;
		}
	}
}

static int write_image(const char *path)
{
	FILE *file = fopen(path, "w");

	if (!file)
		return 2;
	for (unsigned int i = 0; i < options.nr_arenas; i++)
		write_arena(file, i);
	return fclose(file) == 0 ? 0 : 2;
}

/* ---- a hang ---- */

static void print_file(const char *task, const char *name)
{
	char path[128], text[2048];

	snprintf(path, sizeof(path), "%s/%s", task, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text));
	if (n > 0)
		printf("    %s: %.*s\n", name, (int)n, text);
	if (fd >= 0)
		close(fd);
}

/* What each of our threads waits for, and their children's. */
static void print_tasks(const char *process)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/task", process);
	DIR *dir = opendir(path);
	if (!dir)
		return;
	for (struct dirent *entry; (entry = readdir(dir));) {
		char task[400];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(task, sizeof(task), "%s/%s", path, entry->d_name);
		printf("  %s\n", task);
		print_file(task, "wchan");
		print_file(task, "syscall");
		print_file(task, "stack");
		print_file(task, "children");
	}
	closedir(dir);
}

static _Noreturn void hang(void)
{
	printf("seed %lu: no progress for %d s\n", options.seed, HANG_S);
	for (unsigned int i = 0; i < options.nr_arenas; i++) {
		struct arena *arena = &arenas[i];

		printf("thread %u: operation %lu (%s)%s\n", i, arena->operation,
		       operation_name(arena->what),
		       arena->done ? ", done" : "");
		print_steps(arena);
		for (size_t child = 0; child < arena->nr_children; child++) {
			char process[32];

			snprintf(process, sizeof(process), "/proc/%d",
				 arena->children[child]);
			print_tasks(process);
		}
	}
	print_tasks("/proc/self");
	fflush(stdout);
	_exit(2);
}

/* Returns when all threads are done. */
static void watch(void)
{
	uint64_t seen[MAX_ARENAS] = {0};
	double since[MAX_ARENAS] = {0};
	bool all_done = false;

	while (!all_done) {
		double now = seconds_passed();

		all_done = true;
		for (unsigned int i = 0; i < options.nr_arenas; i++) {
			struct arena *arena = &arenas[i];
			uint64_t operation = __atomic_load_n(&arena->operation,
							     __ATOMIC_RELAXED);

			if (__atomic_load_n(&arena->done, __ATOMIC_ACQUIRE))
				continue;
			all_done = false;
			if (operation != seen[i])
				since[i] = now;
			else if (now - since[i] > HANG_S)
				hang();
			seen[i] = operation;
		}
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
}

/* ---- running ---- */

static void *run_arena(void *arg)
{
	struct arena *arena = arg;

	while (seconds_passed() < options.seconds)
		operate(arena);
	reap_children(arena, 0);
	pthread_mutex_lock(&arena->lock);
	unprotect_all(arena);
	check_arena(arena, 1);
	pthread_mutex_unlock(&arena->lock);
	__atomic_store_n(&arena->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static int run(const char *dir, int pid)
{
	uint64_t nr_operations = 0, nr_forks = 0, nr_checked = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned int i = 0; i < options.nr_arenas; i++) {
		arenas[i].number = i;
		arena_init(&arenas[i]);
	}
	hand_over(dir, pid);
	clock_gettime(CLOCK_MONOTONIC, &began);
	for (unsigned int i = 0; i < options.nr_arenas; i++)
		must(&arenas[i],
		     pthread_create(&arenas[i].thread, NULL, run_arena,
				    &arenas[i]) == 0,
		     "pthread_create");
	watch();
	for (unsigned int i = 0; i < options.nr_arenas; i++) {
		pthread_join(arenas[i].thread, NULL);
		nr_operations += arenas[i].operation;
		nr_forks += arenas[i].nr_forks;
		nr_checked += arenas[i].nr_checked;
	}
	printf("%lu operations, %lu forks, %lu pages checked\n", nr_operations,
	       nr_forks, nr_checked);
	return 0;
}

int main(int argc, char **argv)
{
	bool image = argc == 7 && strcmp(argv[1], "image") == 0;

	if (!image && (argc != 10 || strcmp(argv[1], "run") != 0)) {
		fprintf(stderr, "see the comment in main.c\n");
		return 2;
	}
	char **sizes = argv + (image ? 3 : 4);
	options.seed = strtoul(sizes[0], NULL, 0);
	options.nr_arenas = strtoul(sizes[1], NULL, 0);
	options.unit = strtoul(sizes[3], NULL, 0);
	if (options.nr_arenas < 1 || options.nr_arenas > MAX_ARENAS ||
	    options.unit < 1)
		return 2;
	options.nr_pages =
		strtoul(sizes[2], NULL, 0) * PAGES_PER_MIB / options.nr_arenas;
	options.nr_pages -= options.nr_pages % options.unit;
	if (image)
		return write_image(argv[2]);
	options.seconds = strtod(argv[8], NULL);
	options.operations = argv[9];
	return run(argv[2], atoi(argv[3]));
}
