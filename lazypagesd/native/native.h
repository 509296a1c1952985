/*
 * native.h: the whole of the boundary between the C data plane and Python.
 *
 * Declarations only: cffi reads what is included here (without preprocessor
 * lines), and every .c file includes what it is about.  C answers page faults;
 * Python decides everything else.  C never calls Python, allocates nothing,
 * logs nothing and takes no lock; it works on memory that Python prepared, and
 * reports through counters and an eventfd.
 *
 * Functions return 0 or a negative errno; results come through a last
 * parameter named ret_..., written only on success.  Addresses, offsets and
 * sizes are in bytes, ranges are half-open.
 *
 * Threads: "control plane" is any Python thread, "worker" the one thread
 * inside lpd_worker_run().  A field that both touch says so; each such field
 * is read and written with the __atomic builtins in C.
 */
#ifndef LAZYPAGESD_NATIVE_H
#define LAZYPAGESD_NATIVE_H

#include "image_map.h"
#include "recorder.h"
#include "session.h"
#include "state.h"
#include "types.h"
#include "uffd.h"
#include "worker.h"

#endif /* LAZYPAGESD_NATIVE_H */
