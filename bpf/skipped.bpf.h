/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Since 05b24ff9b2cf (v6.1) the kernel skips a program on a tracepoint while the same program runs on that CPU: a
 * softirq that interrupts us would go untold, as happens to one in some thousand connections of a busy host. So the
 * program is attached twice, as two that do nothing but call the one that works. The first notes what it was called
 * for; the second works only if it finds no such note, which is when the first was skipped. At most one is running at
 * any moment, and softirqs do not interrupt each other: so the other one is always there to be called.
 */
#ifndef PYTRACECON_SKIPPED_BPF_H
#define PYTRACECON_SKIPPED_BPF_H

#include "compat.bpf.h"

struct change {
	__u64 sk; /* 0: none */
	__u64 to;
};

struct notes {
	struct change working; /* what the first is working on */
	__u32 depth;
	__u32 reserved;
	struct change what[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct notes);
} notes __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} workers __weak SEC(".maps");

static __always_inline struct notes *own_notes(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&notes, &zero);
}

static __always_inline bool is_that(const struct change *change, const struct sock *sk, int to)
{
	return change->sk == (__u64)sk && change->to == (__u64)to;
}

/* Last of all that something is being worked on: before, a softirq that interrupts this has nothing to look for. */
static __always_inline void note(const struct sock *sk, int to)
{
	struct notes *own = own_notes();
	__u32 at;

	if (!own)
		return;
	at = own->depth & 7;
	own->what[at].sk = (__u64)sk;
	own->what[at].to = to;
	barrier();
	own->depth = at + 1;
	own->working.to = to;
	barrier();
	own->working.sk = (__u64)sk;
}

static __always_inline void worked(const struct sock *sk, int to)
{
	struct notes *own = own_notes();

	if (own && is_that(&own->working, sk, to))
		own->working.sk = 0;
}

/*
 * While the first works on something else, this cannot have been noted. Otherwise it should have been, and is looked
 * for from the top: notes above it, and any left below, are of those whose second program was skipped.
 */
static __always_inline bool noted(const struct sock *sk, int to)
{
	struct notes *own = own_notes();
	int at;

	if (!own || own->working.sk)
		return false;
	for (at = 7; at >= 0; at--) {
		if (at < (int)own->depth && is_that(&own->what[at], sk, to)) {
			own->depth = at;
			return true;
		}
	}
	return false;
}

/*
 * A slot that stays empty. Since a76ab5731e32 (v6.13) a tracing program gets a stack of its own on each CPU, on the
 * ground that it never runs twice there; this one may, and a program with a tail call keeps to the stack of its caller.
 */
#define NO_WORKER 1

#endif
