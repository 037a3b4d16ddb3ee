// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The same, where it does not: each member of a socket is read by a call. */
#define TELLS_INLINE
#define CURRENT_TASK
#include "lifetime.bpf.h"

LIFETIME_PROGRAMS("raw_tp", raw)
