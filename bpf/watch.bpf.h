/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What is told of a socket's states, and when: the first ones wait for the ports. */
#ifndef PYTRACECON_WATCH_BPF_H
#define PYTRACECON_WATCH_BPF_H

#include "filter.bpf.h"

static __always_inline void report_state(const struct watched *known, __u64 at, __u16 error)
{
	struct state_event *event;

	if (!wanted(KIND_STATE) || !known->wanted || !tuple_wanted(&known->conn))
		return;
	event = reserve(sizeof(*event), KIND_STATE, &known->conn);
	if (!event)
		return;
	event->header.time = at;
	event->in_old = known->in_old;
	event->error = error;
	event->from = known->from;
	event->to = known->to;
	event->reserved = 0;
	submit(event);
}

/* The change that waited, now that more is known of the connection. */
static __always_inline void report_waiting(struct watched *known)
{
	__u64 at = known->waits;

	if (!at)
		return;
	known->waits = 0;
	report_state(known, at, 0);
}

/* The first SYN leaves: the entry has the ports now. */
static __always_inline void know_ports(const struct sock *sk, const struct conn *conn)
{
	struct watched *known = wanted(KIND_STATE) ? watched_of(sk) : NULL;

	if (!known || !known->waits)
		return;
	barrier_var(known);
	known->conn = *conn;
	report_waiting(known);
}

#endif
