/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The moment of the first SYN: from now on the ports are known. */
#ifndef PYTRACECON_FIRST_SYN_BPF_H
#define PYTRACECON_FIRST_SYN_BPF_H

#include "report.bpf.h"
#include "watch.bpf.h"

/* The entry of a socket whose first SYN this is; NULL if it is a later one, or nobody's. */
static __always_inline struct sock_state *awaits_first_syn(const struct sock *sk)
{
	struct sock_state *state = state_of(sk);

	return state && state->phase & PHASE_ATTEMPT && !state->started ? state : NULL;
}

/* Its connection has its ends by now. */
static __always_inline void tell_first_syn(const struct sock *sk, struct sock_state *state)
{
	struct sock_state *whole;
	struct sock *parent;

	state->started = bpf_ktime_get_ns();
	state->phase |= PHASE_SYN_LEFT;
	if (BPF_CORE_READ(tcp_sk(sk), fastopen_req))
		state->conn.flags |= CONN_FASTOPEN;
	parent = state->conn.subflow_of ? subflow_parent(sk) : NULL;
	whole = parent ? state_of(parent) : NULL;
	/* The first path of an MPTCP connection is its own first SYN, with its own addresses. */
	if (whole && whole->phase & PHASE_ATTEMPT && !whole->started) {
		whole->started = state->started;
		whole->phase |= PHASE_SYN_LEFT;
		whole->conn.flags |= state->conn.flags & (CONN_V4_MAPPED | CONN_FASTOPEN);
		take_tuple(&whole->conn, sk);
		know_ports(parent, &whole->conn);
		if (matched(parent, whole))
			report_connect(whole);
	}
	know_ports(sk, &state->conn);
	if (matched(sk, state))
		report_connect(state);
}

static __always_inline int on_first_syn(const struct sock *sk)
{
	struct sock_state *state = awaits_first_syn(sk);

	if (!state)
		return 0;
	take_tuple(&state->conn, sk);
	tell_first_syn(sk, state);
	return 0;
}

#endif
