/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* One function a kind of record: what is known of a connection, put into the ring. */
#ifndef PYTRACECON_REPORT_BPF_H
#define PYTRACECON_REPORT_BPF_H

#include "filter.bpf.h"

/* Both ends are known now: decides once whether the filters want this connection, and forgets it if not. */
static __always_inline bool matched(const struct sock *sk, struct sock_state *state)
{
	if (state->phase & PHASE_MATCHED)
		return true;
	if (!tuple_wanted(&state->conn)) {
		forget(sk);
		return false;
	}
	state->phase |= PHASE_MATCHED;
	return true;
}

/* Nothing but the SYN was sent so far. An MPTCP connection's goes by its first path. */
static __always_inline __u32 syn_retransmits(const struct sock *sk, __u8 protocol)
{
	if (protocol == PROTO_MPTCP && bpf_core_type_exists(struct mptcp_sock))
		sk = BPF_CORE_READ(mptcp_sk(sk), first);
	return sk ? BPF_CORE_READ(tcp_sk(sk), total_retrans) : 0;
}

static __always_inline void report_connect(const struct sock_state *state)
{
	struct connect_event *event;

	if (!wanted(KIND_CONNECT))
		return;
	event = reserve_at(sizeof(*event), KIND_CONNECT, &state->conn, state->started);
	if (event)
		submit(event);
}

static __always_inline void report_established(const struct sock_state *state, const struct sock *sk)
{
	struct established_event *event;

	if (!wanted(KIND_ESTABLISHED))
		return;
	/* The moment from which the latency and, later, the duration are counted, not the one a few instructions after. */
	event = reserve_at(sizeof(*event), KIND_ESTABLISHED, &state->conn, state->established);
	if (!event)
		return;
	event->latency = state->started ? state->established - state->started : 0;
	event->syn_retransmits = syn_retransmits(sk, state->conn.protocol);
	event->reserved = 0;
	submit(event);
}

static __always_inline void report_failed(const struct sock_state *state, const struct sock *sk, __u16 error)
{
	struct failed_event *event;
	__u64 now;

	if (state->conn.subflow_of) {
		struct sock *parent = subflow_parent(sk);
		struct sock_state *whole = parent ? state_of(parent) : NULL;

		if (whole)
			whole->error = error;
	}
	if (!wanted(KIND_FAILED))
		return;
	now = bpf_ktime_get_ns();
	if (settings.min_latency && (!state->started || now - state->started < settings.min_latency))
		return;
	event = reserve_at(sizeof(*event), KIND_FAILED, &state->conn, now);
	if (!event)
		return;
	event->latency = state->started ? now - state->started : 0;
	event->syn_retransmits = syn_retransmits(sk, state->conn.protocol);
	event->error = error;
	event->syn_left = !!(state->phase & PHASE_SYN_LEFT);
	event->reserved = 0;
	submit(event);
}

static __always_inline void report_accept(const struct sock_state *state)
{
	__u64 now = bpf_ktime_get_ns();
	struct accept_event *event;

	if (!wanted(KIND_ACCEPT))
		return;
	event = reserve_at(sizeof(*event), KIND_ACCEPT, &state->conn, now);
	if (!event)
		return;
	event->wait = state->established ? now - state->established : 0;
	submit(event);
}

#endif
