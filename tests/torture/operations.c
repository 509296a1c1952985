/*
 * operations.c: which operation is next.
 */
#include "torture.h"

static const struct operation {
	char letter;
	const char *name;
	unsigned int weight;
	void (*run)(struct arena *arena);
	bool unlocked;
} table[] = {
	{'.', "nothing", 0, NULL, false},
	{'n', "map new", 32, map_new, false},
	{'u', "unmap", 32, unmap, false},
	{'m', "move to new", 80, move_to_new, false},
	{'o', "move to own", 40, move_to_own, false},
	{'g', "grow", 32, grow, false},
	{'s', "shrink", 24, shrink, false},
	{'y', "move and stay", 24, move_and_stay, false},
	{'d', "drop", 64, drop, false},
	{'f', "free lazily", 24, free_lazily, false},
	{'k', "keep from children", 16, keep_from_children, false},
	{'a', "advise", 24, advise, false},
	{'l', "lock", 16, lock_for_a_while, false},
	{'p', "protect", 24, protect, false},
	{'P', "protect page", 32, protect_page, false},
	{'X', "wipe in children", 16, wipe_in_children, false},
	{'G', "guard", 16, guard, false},
	{'U', "unguard", 16, unguard, false},
	{'c', "look", 128, look, false},
	{'w', "rewrite", 96, rewrite, false},
	{'r', "read from file", 32, read_from_file, false},
	{'W', "write to file", 32, write_to_file, false},
	{'|', "write to pipe", 32, write_to_pipe, false},
	{'F', "fork and check", 2, fork_and_check, true},
	{'K', "fork and kill", 1, fork_and_kill, true},
	{'R', "fork and read parent", 1, fork_and_read_parent, true},
	{'V', "vfork and exec", 1, vfork_and_exec, true},
	{'C', "share memory", 8, share_memory, true},
};

#define NR_OPERATIONS (sizeof(table) / sizeof(table[0]))

const char *operation_name(unsigned int what)
{
	return table[what].name;
}

static bool is_wanted(const struct operation *operation)
{
	return !options.operations[0] ||
	       strchr(options.operations, operation->letter);
}

static unsigned int choose_operation(struct arena *arena)
{
	unsigned int total = 0, what = 0;

	for (unsigned int i = 0; i < NR_OPERATIONS; i++)
		if (is_wanted(&table[i]))
			total += table[i].weight;
	size_t left = choose(arena, total);
	for (;; what++) {
		if (!is_wanted(&table[what]))
			continue;
		if (left < table[what].weight)
			return what;
		left -= table[what].weight;
	}
}

/* Too many pieces: join them, and give up some that cannot be joined. */
static void make_room(struct arena *arena)
{
	if (arena->nr_ranges < MANY_RANGES)
		return;
	join_ranges(arena);
	while (arena->nr_ranges > MANY_RANGES * 3 / 4) {
		struct range *range = choose_range(arena);

		if (range->nr <= 64 * options.unit)
			unmap_range(arena, range);
	}
}

void operate(struct arena *arena)
{
	unsigned int what = choose_operation(arena);

	__atomic_store_n(&arena->what, what, __ATOMIC_RELAXED);
	__atomic_store_n(&arena->operation, arena->operation + 1,
			 __ATOMIC_RELAXED);
	if (table[what].unlocked) {
		table[what].run(arena);
		return;
	}
	pthread_mutex_lock(&arena->lock);
	make_room(arena);
	table[what].run(arena);
	pthread_mutex_unlock(&arena->lock);
}
