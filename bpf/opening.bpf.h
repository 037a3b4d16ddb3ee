/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* From the first change of a TCP socket's state to ESTABLISHED, or to an attempt that failed. */
#ifndef PYTRACECON_OPENING_BPF_H
#define PYTRACECON_OPENING_BPF_H

#include "listening.bpf.h"
#include "report.bpf.h"

/* Runs in connect() or in a send with MSG_FASTOPEN, io_uring's too: whoever runs is who asks. */
static __always_inline void on_attempt(const struct sock *sk, struct sock_state *fresh)
{
	struct task_struct *task = current_task();
	bool tcp = fresh->conn.protocol == PROTO_TCP;

	if (settings.attempt_hook == ATTEMPT_SYSCALL) {
		__u64 key = (__u64)task;
		struct syscall_attempt *call = bpf_map_lookup_elem(&syscall_attempts, &key);

		if (!call) {
			key = (__u64)sk;
			call = bpf_map_lookup_elem(&uring_attempts, &key);
		}
		if (call) {
			call->began = 1;
			if (!fresh->conn.subflow_of)
				call->sk = (__u64)sk;
		}
	}
	if (!fresh->conn.subflow_of) {
		if (!take_owner(&fresh->conn, task, OWNER_CONNECT)) {
			forget(sk);
			return;
		}
	}
	fresh->phase = PHASE_ATTEMPT;
	if (settings.attempt_hook && (tcp || settings.attempt_hook == ATTEMPT_SYSCALL))
		fresh->phase |= PHASE_IN_CONNECT;
	if (!settings.syn_hook && tcp) {
		fresh->phase |= PHASE_SYN_LEFT;
		/* A deferred fast open sends its SYN with the first data, which nobody here will see. */
		if (!BPF_CORE_READ_BITFIELD_PROBED(tcp_sk(sk), fastopen_connect))
			fresh->started = bpf_ktime_get_ns();
		if (!matched(sk, fresh))
			return;
		report_connect(fresh);
	}
	remember(sk, fresh);
}

static __always_inline void on_attempt_end(const struct sock *sk, struct sock_state *state)
{
	int error = READ_SOCK(sk, sk_err) ?: (int)state->error;

	if (!error && state->phase & PHASE_IN_CONNECT && state->conn.tid == (__u32)bpf_get_current_pid_tgid()) {
		state->phase |= PHASE_PENDING;
		return;
	}
	/*
	 * A process gives up with the socket in its hands. If none holds it, there was an error, and whoever polled took
	 * it first: before 853c3bd7b791 (v6.11) it was announced before the state changed.
	 */
	if (!error && !READ_SOCK(sk, sk_lock.owned))
		error = ERROR_UNKNOWN;
	/* Where no hook saw the first SYN, the port is read now; the rest the kernel may have cleared already. */
	if (!state->conn.local_port)
		state->conn.local_port = bpf_ntohs(source_port(sk));
	if (matched(sk, state)) {
		report_failed(state, sk, error);
		state->phase |= PHASE_CLOSED;
		forget(sk);
	}
}

static __always_inline void on_outbound(const struct sock *sk, struct sock_state *state)
{
	state->established = bpf_ktime_get_ns();
	state->phase &= ~(PHASE_ATTEMPT | PHASE_IN_CONNECT);
	state->conn.flags &= ~CONN_FASTOPEN;
	if (state->conn.protocol == PROTO_TCP) {
		const struct tcp_sock *tp = read_tcp(sk);

		if (!settings.syn_hook)
			take_tuple(&state->conn, sk);
		/* More than the SYN was acknowledged: its data too. */
		if (tp && READ_SOCK(tp, bytes_acked) > 1 && BPF_CORE_READ_BITFIELD_PROBED(tp, syn_data))
			state->conn.flags |= CONN_FASTOPEN;
	}
	if (!matched(sk, state))
		return;
	if (settings.min_latency && (!state->started || state->established - state->started < settings.min_latency)) {
		forget(sk);
		return;
	}
	report_established(state, sk);
}

/* The kernel gives an MPTCP connection its addresses after its state: they come with its first path. */
static __always_inline void complete_whole(const struct sock *sk, const struct conn *path)
{
	struct sock *parent = subflow_parent(sk);
	struct sock_state *whole = parent ? state_of(parent) : NULL;

	if (!whole || whole->conn.remote_port)
		return;
	barrier_var(whole);
	__builtin_memcpy(whole->conn.local_addr, path->local_addr, sizeof(path->local_addr));
	__builtin_memcpy(whole->conn.remote_addr, path->remote_addr, sizeof(path->remote_addr));
	whole->conn.local_port = path->local_port;
	whole->conn.remote_port = path->remote_port;
	whole->conn.flags |= path->flags & CONN_V4_MAPPED;
	take_listener(whole);
}

static __always_inline void on_inbound(const struct sock *sk, struct sock_state *fresh)
{
	fresh->established = bpf_ktime_get_ns();
	if (fresh->conn.protocol == PROTO_TCP) {
		if (!tuple_wanted(&fresh->conn))
			return;
		fresh->phase = PHASE_MATCHED;
		if (fresh->conn.subflow_of)
			complete_whole(sk, &fresh->conn);
		else
			take_listener(fresh);
	}
	remember(sk, fresh);
}

static __always_inline void begin_mptcp_count(const struct sock *sk)
{
	struct sock_state *state = state_of(sk);

	if (!state || !bpf_core_type_exists(struct mptcp_sock))
		return;
	barrier_var(state);
	state->tx_base = BPF_CORE_READ(mptcp_sk(sk), write_seq);
	state->rx_base = BPF_CORE_READ(mptcp_sk(sk), ack_seq);
}

#endif
