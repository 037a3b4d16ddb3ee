/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The end of an established connection, and what it amounts to. */
#ifndef PYTRACECON_CLOSING_BPF_H
#define PYTRACECON_CLOSING_BPF_H

#include "report.bpf.h"
#include "totals.bpf.h"

static __always_inline void report_close(struct sock_state *state, const struct sock *sk, int from)
{
	__u64 now = bpf_ktime_get_ns(), duration = 0;
	__u32 nothing = no_bits(sk);
	struct close_event *event;
	bool unacked;

	if (!wanted(KIND_CLOSE))
		return;
	event = reserve_at(sizeof(*event), KIND_CLOSE, &state->conn, now);
	if (!event)
		return;
	/* Nothing is read from the record: its lines are in no cache, and a read waits until what was written is there. */
	if (state->established && !(state->conn.flags & CONN_PRE_EXISTING))
		duration = now - state->established;
	event->duration = duration;
	event->handshake = duration && state->started ? state->established - state->started : 0;
	__builtin_memset(&event->totals, 0, sizeof(event->totals));
	from = veiled(from, nothing);
	if (state->conn.protocol == PROTO_TCP)
		unacked = tcp_totals(&event->totals, sk, from, state->conn.direction, true);
	else
		unacked = mptcp_totals(&event->totals, sk, from, state);
	from = veiled(from, nothing);
	event->totals.ended = how_ended(sk, from, state, veiled(unacked, nothing));
	submit(event);
}

/* A path of an MPTCP connection belongs to whoever has taken that by now. */
static __always_inline void take_whole(struct sock_state *state, const struct sock *sk)
{
	struct sock *parent = subflow_parent(sk);
	struct sock_state *whole = parent ? state_of(parent) : NULL;

	if (whole)
		copy_owner(&state->conn, &whole->conn, whole->conn.owner);
}

static __always_inline void on_close(const struct sock *sk, struct sock_state *state, int from)
{
	if (state->phase & PHASE_CLOSED)
		return;
	if (state->conn.subflow_of)
		take_whole(state, sk);
	if (on(BY_OWNER) && (is_waiting(state) ? !(state->phase & PHASE_LISTENER_WANTED) : !state->conn.pid)) {
		forget(sk);
		return;
	}
	if (matched(sk, state))
		report_close(state, sk, from);
	/* An entry that the kernel does not delete now, because its lock is not to be had, is found here again. */
	state->phase |= PHASE_CLOSED;
	/* It may still be accepted, dead as it is, and is the same connection then. */
	if (!is_waiting(state) || state->conn.protocol != PROTO_TCP)
		forget(sk);
}

#endif
