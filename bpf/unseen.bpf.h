/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Connections that are over and were not told to be, because the kernel passed by every program that would have. */
#ifndef PYTRACECON_UNSEEN_BPF_H
#define PYTRACECON_UNSEEN_BPF_H

#include "filter.bpf.h"

/* As when it closes: one that nobody accepted is the listener's. */
static __always_inline bool still_wanted(const struct sock_state *state)
{
	if (on(BY_OWNER) && (is_waiting(state) ? !(state->phase & PHASE_LISTENER_WANTED) : !state->conn.pid))
		return false;
	return state->phase & PHASE_MATCHED || tuple_wanted(&state->conn);
}

/*
 * Of an entry whose socket is over. One that has no beginning may have been made by the reset that tcp_disconnect()
 * sends after the end, and of an attempt nobody knows how long it took.
 */
static __always_inline bool end_is_missing(const struct sock_state *state)
{
	bool attempt = state->phase & PHASE_ATTEMPT;

	if (state->phase & (PHASE_CLOSED | PHASE_PENDING | PHASE_UNKNOWN))
		return false;
	if (!wanted(attempt ? KIND_FAILED : KIND_CLOSE) || (attempt && settings.min_latency))
		return false;
	return still_wanted(state);
}

static __always_inline bool same_remote(const struct sock_state *state, const struct sock *sk)
{
	return state->conn.remote_port == bpf_ntohs(READ_SOCK(sk, __sk_common.skc_dport)) &&
	       !(state->phase & PHASE_CLOSED);
}

#endif
