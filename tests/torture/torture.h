/*
 * A process that rearranges its memory in every way that there is, while a
 * daemon fills it, and knows what each page must hold.
 *
 * Each thread owns an arena.  What is in an arena is known to its record: a
 * list of ranges of addresses, and of each page in them its key and a few
 * flags.  A page's first word is its key, and the others are a hash of the key
 * and of their place, so that a page in the wrong place, of the wrong version
 * or of the wrong process is found, and says which it is.  Key 0 means zeros.
 */
#ifndef TORTURE_H
#define TORTURE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define READ_WRITE     (PROT_READ | PROT_WRITE)
#define PAGE_SIZE      ((size_t)4096)
#define WORDS_PER_PAGE (PAGE_SIZE / sizeof(uint64_t))
#define PAGES_PER_MIB  ((size_t)256)

#define MAX_ARENAS   16
#define MAX_RANGES   2048
#define MANY_RANGES  512 /* from here on they are joined, or given up */
#define MAX_CHILDREN 3
#define NR_PAST      5
#define NR_STEPS     48

/* What else is known about a page than its key. */
enum {
	/*
	 * As recorded, or zeros: after MADV_FREE; or in a child for which it
	 * was wiped (MADV_WIPEONFORK), of which nobody tells, if it may have
	 * been missing then.  See docs/explanation/correctness.md.
	 */
	PAGE_FREED = 1,
	PAGE_UNTOLD = 2,      /* registered, but not a page of the image */
	PAGE_NONE = 4,        /* PROT_NONE */
	PAGE_READONLY = 8,    /* PROT_READ */
	PAGE_DONTFORK = 16,   /* MADV_DONTFORK */
	PAGE_WIPEONFORK = 32, /* MADV_WIPEONFORK */
	PAGE_GUARD = 64,      /* MADV_GUARD_INSTALL */
	PAGE_NO_ACCESS = PAGE_NONE | PAGE_GUARD,
};

struct page {
	uint64_t key;
	uint32_t flags;
	uint32_t
		past[NR_PAST]; /* lately: operation << 6 | what, newest first */
};

/*
 * Pages [0, nr) at addr.  They are of one mapping unless split is set; then a
 * call that must not cross mappings is made page by page.
 */
struct range {
	char *addr;
	size_t nr;
	struct page *pages;
	bool registered; /* with userfaultfd, as long as the daemon serves */
	bool split;
};

/* One operation, for the history of a thread. */
struct step {
	uint64_t operation;
	const char *what;
	char *addr;
	size_t nr;
	char *to;
};

struct arena {
	unsigned int number;
	pthread_mutex_t lock; /* held while memory and record do not agree */
	pthread_t thread;
	struct range ranges[MAX_RANGES];
	size_t nr_ranges;
	uint64_t random;
	uint64_t nr_versions;
	uint64_t operation; /* its number; also says that there is progress */
	unsigned int what;  /* index of its name */
	bool done;
	struct step steps[NR_STEPS];
	uint64_t nr_steps;
	uint64_t nr_checked;
	uint64_t nr_forks;
	pid_t children[MAX_CHILDREN];
	size_t nr_children;
	int file;    /* a page of scratch */
	int pipe[2]; /* room for a few pages */
};

struct options {
	uint64_t seed;
	double seconds;
	unsigned int nr_arenas;
	size_t nr_pages; /* of each arena */
	size_t unit;     /* so many are mapped and there together */
	const char *operations;
};

extern struct options options;
extern struct arena arenas[MAX_ARENAS];
extern unsigned int child_depth;

/* ---- record.c: what every page must hold ---- */

uint64_t mix(uint64_t x);
size_t choose(struct arena *arena, size_t nr);
void fill_page(void *page, uint64_t key);

/* The key of a page of the image; 0 if it is a hole. */
uint64_t image_key(unsigned int arena, size_t page);
char *arena_start(unsigned int arena);
void arena_init(struct arena *arena);

/* Look at one page, unless it has no access; prints and exits if wrong. */
void check_page(struct arena *arena, const struct range *range, size_t page);
/* The same for a copy of it, got through @how. */
void check_copy(struct arena *arena, const struct range *range, size_t page,
		const void *copy, const char *how);
/* Look at every stride-th page of all ranges. */
void check_arena(struct arena *arena, size_t stride);

/* Note an operation on pages for the histories. */
void note(struct arena *arena, const struct range *range, size_t page,
	  size_t nr, char *to);

/*
 * Make pages [page, page + nr) a range of their own, and return it; NULL if
 * there is no room.  What is left of the range are ranges at the end of the
 * list.
 */
struct range *isolate(struct arena *arena, struct range *range, size_t page,
		      size_t nr);
struct range *add_range(struct arena *arena, char *addr, size_t nr,
			bool registered);
void remove_range(struct arena *arena, struct range *range);
/* Join what can be joined. */
void join_ranges(struct arena *arena);
bool any_flag(const struct range *range, uint32_t flags);
void change_flag(struct range *range, uint32_t flag, bool set);
/* Record that all its pages are zeros, and more_flags of each. */
void set_zero(struct range *range, uint32_t more_flags);
/* Forget what a forked child was not given, and what was wiped for it. */
void drop_unforked(struct arena *arena);

/* Print what an arena has been doing. */
void print_steps(const struct arena *arena);
/* Print why and everything about it, and exit. */
_Noreturn void finding(struct arena *arena, const char *what);
/* The same if a call has failed that must not. */
void must(struct arena *arena, bool happened, const char *what);

/* ---- operations.c ---- */

/* Do one random operation on an arena. */
void operate(struct arena *arena);
const char *operation_name(unsigned int what);

/* ---- mappings.c ---- */

struct range *choose_range(struct arena *arena);
/* A piece of a random range, made a range of its own; NULL: no room. */
struct range *choose_piece(struct arena *arena);
/* Of a piece, in pages: mostly few, and whole units. */
size_t choose_length(struct arena *arena);
/* mmap of memory like an arena's. */
char *map_pages(char *hint, size_t nr, int prot, int more_flags);
void unmap_range(struct arena *arena, struct range *range);
void map_new(struct arena *arena);
void unmap(struct arena *arena);
void move_to_new(struct arena *arena);
void move_to_own(struct arena *arena);
void grow(struct arena *arena);
void shrink(struct arena *arena);
void move_and_stay(struct arena *arena);

/* ---- advice.c ---- */

void drop(struct arena *arena);
void free_lazily(struct arena *arena);
void keep_from_children(struct arena *arena);
void wipe_in_children(struct arena *arena);
void guard(struct arena *arena);
void unguard(struct arena *arena);
void advise(struct arena *arena);
void lock_for_a_while(struct arena *arena);
void protect(struct arena *arena);
void protect_page(struct arena *arena);
/* Make every page of an arena readable. */
void unprotect_all(struct arena *arena);

/* ---- content.c ---- */

char *page_addr(const struct range *range, size_t page);
/* Choose a page; false if it has one of the forbidden flags. */
bool has_page(struct arena *arena, uint32_t forbidden, struct range **ret_range,
	      size_t *ret_page);
void look(struct arena *arena);
void rewrite(struct arena *arena);
void read_from_file(struct arena *arena);
void write_to_file(struct arena *arena);
void write_to_pipe(struct arena *arena);

/* ---- processes.c: each with the arena's lock not held ---- */

void fork_and_check(struct arena *arena);
void fork_and_kill(struct arena *arena);
void fork_and_read_parent(struct arena *arena);
void vfork_and_exec(struct arena *arena);
void share_memory(struct arena *arena);
void reap_children(struct arena *arena, size_t nr_left);

/* ---- handoff.c ---- */

/* Hand ourselves over as @pid, at the socket in @dir; returns at the word. */
void hand_over(const char *dir, int pid);

#endif
