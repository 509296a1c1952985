/*
 * A random order of pages that needs no memory: a process that has just been
 * restored would have to wait for that, too.
 */
#ifndef BENCH_ORDER_H
#define BENCH_ORDER_H

#include <stdint.h>

/*
 * The page at @place in a fixed order of @nr, which has each page once: steps
 * that can be undone, on numbers below a power of two, again and again until
 * one is below @nr.
 */
static inline uint64_t permute(uint64_t place, uint64_t nr)
{
	unsigned int bits = nr > 2 ? 64 - __builtin_clzll(nr - 1) : 1;
	uint64_t mask = (1ull << bits) - 1;

	do {
		for (int i = 0; i < 3; i++) {
			place = (place + 0x51) * 0x9e3779b97f4a7c15 & mask;
			place ^= place >> ((bits + 1) / 2);
		}
	} while (place >= nr);
	return place;
}

#endif
