// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The life of a TCP socket, where the kernel's BTF vouches for what a tracepoint is called with. */
#define TELLS_INLINE
#define VOUCHED_SOCK
#define CURRENT_TASK
#include "lifetime.bpf.h"

LIFETIME_PROGRAMS("tp_btf", btf)
