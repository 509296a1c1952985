/*
 * victim.h: what the files of the victim share; victim.c says what it is.
 */
#ifndef LAZYPAGESD_VICTIM_H
#define LAZYPAGESD_VICTIM_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE   4096
#define MAX_THREADS 512
#define NR_ARGS     5

/*
 * A command is given its numbers, and zeros for those that are missing; what
 * it returns is the answer.
 */
struct command {
	const char *name;
	int64_t (*run)(const uint64_t *args);
};

/* Each ends with one that has no name. */
extern const struct command handover_commands[], channel_commands[],
	reading_commands[], mapping_commands[], hammer_commands[],
	process_commands[];

/* The path of the socket that this process has connected to; it itself. */
extern const char *socket_path;
extern int sock;

/* What is handed over: a userfaultfd, or the other end of a channel. */
extern int uffd;

/* What a system call has returned, or -errno. */
int64_t result_of(int64_t returned);

/* Answer: a result, and how many bytes are sent after it. */
void answer_begin(int64_t result, size_t len);
void send_all(const void *bytes, size_t len);

/* Connect, as every process of the family does, and say one's pid. */
void introduce_oneself(void);

/* Do what is told, until the socket is closed; does not return. */
void obey(void);

/* Answer with memory, read in this thread / by those that "begin" has made. */
void read_now(const uint64_t *args);
void end_reading(void);

#endif /* LAZYPAGESD_VICTIM_H */
