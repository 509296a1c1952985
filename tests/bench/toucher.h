/*
 * toucher: the process that is restored, and measures how.
 */
#ifndef BENCH_TOUCHER_H
#define BENCH_TOUCHER_H

#include "memory.h"

enum order {
	RANDOM,
	SEQUENTIAL,
	WAIT, /* touch nothing: wait until all has been filled */
};

/* How the pages are touched. */
struct touching {
	enum order order;
	uint64_t nr_threads; /* each takes every so manieth page of the order */
	uint64_t nr_touches; /* of all threads: the first ones of the order */
	uint64_t pause_ns;   /* from one touch to the next; 0: none */
	bool asleep;         /* meanwhile; or else the processor is used */
	bool own;            /* each thread has a session, of all touches */
	bool linger;         /* do not end */
};

/* touch.c: read a touching of six words, as main.c's usage has them. */
void read_touching(char **words, struct touching *touching);

/*
 * touch.c: touch, look at each page, and write what there is to say to the file
 * @path, or to stdout if it is NULL.  The clock has run since @start_ns.
 */
void touch_and_report(const struct layout *layout,
		      const struct touching *touching, uint64_t start_ns,
		      const char *path);

/*
 * handoff.c: make the memory of every session, hand each over as a restored
 * process of its own, and say the final word; all as criu restore does it.
 * Returns the time just before that.
 */
uint64_t hand_over(const struct layout *layout);

#endif
