/*
 * channel_all.c: the library of channel.h as one file to compile.
 */
#include "channel.c"
#include "channel_faults.c"
#include "channel_ranges.c"
#include "channel_serve.c"
