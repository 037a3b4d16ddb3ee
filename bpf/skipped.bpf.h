/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Since 05b24ff9b2cf (v6.1) the kernel skips a program on a tracepoint while the same program runs on that CPU: a
 * softirq that interrupts us would go untold, as happens to one in some thousand connections of a busy host. So the
 * program is attached twice, as two that do nothing but call the one that works. The first notes what it was called
 * for; the second works only if it finds no such note, which is when the first was skipped. At most one is running when
 * a softirq comes, and softirqs do not interrupt each other: so the other one is there to be called.
 *
 * Since a46023d5616e (v7.0) tracepoints do not keep the kernel from giving the CPU to another task, SRCU guards them:
 * both programs may be in the hands of tasks that wait for it, and then all that others do there goes untold. That is
 * counted: it is how often the first was skipped, without how often the second found out. So every change is noted.
 */
#ifndef PYTRACECON_SKIPPED_BPF_H
#define PYTRACECON_SKIPPED_BPF_H

#include "emit.bpf.h"

#define NOTES 8

struct change {
	__u64 sk; /* 0: none */
	__u64 to;
};

/* What the first of the two was called for, until the second is. */
struct notes {
	struct change of[NOTES];
	__u64 next;
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

/* Its socket first: with that the place is taken, whatever interrupts this. */
static __always_inline void write_note(struct change *place, const struct sock *sk, int to)
{
	place->sk = (__u64)sk;
	barrier();
	place->to = (__u64)to;
}

/*
 * All places are free mostly. Notes that were not looked for, as the second program was skipped, stay: the socket's next
 * change ends them, wherever they are, or it would be taken for them some day. As a socket's memory is soon another
 * one's they do not fill all. If they do, places are used again in turn, the one that was just taken last of all.
 */
static __always_inline void note(const struct sock *sk, int to)
{
	struct notes *own = own_notes();
	__u64 taken = 0;
	int at;

	if (!own)
		return;
	for (at = 0; at < NOTES; at++)
		taken |= own->of[at].sk;
	if (LIKELY(!taken)) {
		write_note(&own->of[0], sk, to);
		return;
	}
	for (at = 0; at < NOTES; at++) {
		if (own->of[at].sk == (__u64)sk)
			own->of[at].sk = 0;
	}
	for (at = 0; at < NOTES; at++) {
		if (!own->of[at].sk) {
			write_note(&own->of[at], sk, to);
			return;
		}
	}
	write_note(&own->of[own->next++ % NOTES], sk, to);
}

/* A socket does not come to one state twice without another between, and its lock lets changes come one by one. */
static __always_inline bool noted(const struct sock *sk, int to)
{
	struct notes *own = own_notes();
	int at;

	if (!own)
		return false;
	for (at = 0; at < NOTES; at++) {
		if (LIKELY(own->of[at].sk == (__u64)sk && own->of[at].to == (__u64)to)) {
			own->of[at].sk = 0;
			return true;
		}
	}
	return false;
}

/* Does the kernel let other tasks run, on this CPU or this one on another, between the programs of a tracepoint? */
struct tp_transition_snapshot___by_srcu {
	unsigned long srcu_gp;
} __attribute__((preserve_access_index));

static __always_inline bool may_be_preempted(void)
{
	return bpf_core_field_exists(struct tp_transition_snapshot___by_srcu, srcu_gp);
}

/*
 * A slot that stays empty. Since a76ab5731e32 (v6.13) a tracing program gets a stack of its own on each CPU, on the
 * ground that it never runs twice there; this one may, and a program with a tail call keeps to the stack of its caller.
 */
#define NO_WORKER 1

#endif
