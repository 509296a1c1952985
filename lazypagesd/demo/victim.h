/*
 * The process that the demo checkpoints and restores: it holds memory and
 * answers questions about it.
 *
 * Each page repeats one word, a hash of the page's number, so that a page in
 * the wrong place is as wrong as one of zeros.
 */
#ifndef LAZYPAGESD_DEMO_VICTIM_H
#define LAZYPAGESD_DEMO_VICTIM_H

#define _GNU_SOURCE

#include <stddef.h>
#include <stdint.h>

/* Where the memory is: the same place in every process that has it. */
#define MEMORY_ADDR ((void *)0x100000000000)
#define PAGE_SIZE   ((size_t)4096)

/* Print @what and errno, and end the process. */
void fail(const char *what) __attribute__((noreturn));

/* Map @nr_pages at MEMORY_ADDR, with nothing in them. */
uint64_t *map_memory(size_t nr_pages);

/*
 * Let the daemon that listens at DIR/lazy-pages.socket fill @nr_pages at
 * @memory, as the pages of process @pid of its images. On return the memory is
 * ready to be used, although nothing is there.
 *
 * Does what a process does that CRIU restores; ends the process when it cannot.
 */
void hand_over(const char *dir, int32_t pid, void *memory, size_t nr_pages);

#endif
