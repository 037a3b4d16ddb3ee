/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What happens when a process takes an inbound connection, whichever hook saw it. */
#ifndef PYTRACECON_ACCEPT_BPF_H
#define PYTRACECON_ACCEPT_BPF_H

#include "report.bpf.h"
#include "unseen.bpf.h"

static __always_inline bool begin_accepted(struct sock_state *fresh, const struct sock *sk, __u8 protocol)
{
	__u8 flags = 0;

	/* A fast open is accepted before its handshake is over; all else without an entry is older, or forgotten. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) != STATE_SYN_RECV)
		flags = anything_forgotten() ? CONN_PARTIAL : CONN_PRE_EXISTING;
	fresh->conn.flags = veiled(flags, no_bits(sk));
	begin(fresh, sk, protocol, DIRECTION_IN);
	return tuple_wanted(&fresh->conn);
}

/* The path that an MPTCP connection came by is its owner's from now on; it may end after the connection itself. */
static __always_inline void give_first_path(const struct sock *sk, const struct conn *owner)
{
	struct sock *path;
	struct sock_state *state;

	if (!bpf_core_type_exists(struct mptcp_sock))
		return;
	path = BPF_CORE_READ(mptcp_sk(sk), first);
	state = path ? state_of(path) : NULL;
	if (!state)
		return;
	barrier_var(state);
	copy_owner(&state->conn, owner, OWNER_ACCEPT);
}

static __always_inline int on_accept(const struct sock *sk)
{
	struct task_struct *task = current_task();
	struct sock_state *state, fresh = {};
	__u8 protocol = protocol_of(sk);

	if (!protocol)
		return 0;
	state = state_of(sk);
	if (state && state->phase & PHASE_ACCEPTED && protocol == PROTO_TCP && !same_remote(state, sk)) {
		/* Another connection's, whose end no program saw, and neither this one's handshake. */
		if (end_is_missing(state))
			count_unseen();
		state = NULL;
	}
	if (!state) {
		if (!begin_accepted(&fresh, sk, protocol))
			return 0;
		if (!take_owner(&fresh.conn, task, OWNER_ACCEPT))
			return 0;
		fresh.phase = PHASE_ACCEPTED | PHASE_MATCHED;
		report_accept(&fresh);
		if (BPF_CORE_READ(sk, __sk_common.skc_state) != STATE_CLOSE)
			remember(sk, &fresh);
		return 0;
	}
	if (state->phase & PHASE_ACCEPTED || state->conn.direction != DIRECTION_IN)
		return 0;
	barrier_var(state);
	if (!take_owner(&state->conn, task, OWNER_ACCEPT)) {
		forget(sk);
		return 0;
	}
	if (protocol == PROTO_MPTCP) {
		take_tuple(&state->conn, sk);
		give_first_path(sk, &state->conn);
	}
	if (!matched(sk, state))
		return 0;
	/* What its listener was matters no more. */
	state->conn.flags &= ~CONN_PARTIAL;
	state->phase |= PHASE_ACCEPTED;
	report_accept(state);
	if (state->phase & PHASE_CLOSED)
		forget(sk);
	return 0;
}

#endif
