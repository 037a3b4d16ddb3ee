/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The life of a TCP socket, from its state changes. Most of them happen in softirq: the owner is never taken from
 * whoever runs, save where the state can change in a system call only (CLOSE to SYN_SENT, CLOSE to LISTEN).
 */
#ifndef PYTRACECON_LIFETIME_BPF_H
#define PYTRACECON_LIFETIME_BPF_H

#include "opening.bpf.h"
#include "closing.bpf.h"
#include "unseen.bpf.h"
#include "skipped.bpf.h"

/* Of a change of state that says something of a connection: what it is to a socket that has no entry. */
enum beginning { NOT_BEGINNING, BEGINS_OUTBOUND, BEGINS_INBOUND, UNKNOWN_OUTBOUND, UNKNOWN_CLOSING };

/*
 * A further path of an MPTCP connection: it has that one's file before it is established. It is its owner's: with a filter
 * on owners, one of a connection that has no entry is nobody's.
 */
static __always_inline bool joins(const struct sock *sk)
{
	struct sock *parent = subflow_parent(sk);

	return parent && (!on(BY_OWNER) || state_of(parent));
}

static __always_inline enum beginning beginning_of(const struct sock *sk, int from, int to)
{
	if (to == STATE_SYN_SENT)
		return BEGINS_OUTBOUND;
	if (from == STATE_SYN_SENT && (to == STATE_ESTABLISHED || to == STATE_CLOSE))
		return UNKNOWN_OUTBOUND;
	/* A child has no file before it is accepted, if it is no path; a socket that connects to itself has one. */
	if (to == STATE_ESTABLISHED)
		return BPF_CORE_READ(sk, sk_socket) && !joins(sk) ? NOT_BEGINNING : BEGINS_INBOUND;
	return to == STATE_CLOSE && from != STATE_SYN_RECV ? UNKNOWN_CLOSING : NOT_BEGINNING;
}

/* Fills a fresh entry; false if nothing is to be said of this connection. */
static __always_inline bool begin_anew(struct sock_state *fresh, const struct sock *sk, __u8 protocol,
				       enum beginning beginning, int from, __u32 nothing)
{
	__u8 direction = beginning == BEGINS_INBOUND ? DIRECTION_IN : DIRECTION_OUT, flags = 0, unknown = 0;

	if (beginning == NOT_BEGINNING)
		return false;
	if (beginning == UNKNOWN_OUTBOUND || beginning == UNKNOWN_CLOSING) {
		/* It may be anybody's: with a filter on owners it is held back. */
		if (on(BY_OWNER) || settings.min_latency)
			return false;
		flags = anything_forgotten() ? CONN_PARTIAL : CONN_PRE_EXISTING;
		unknown = 1;
		if (beginning == UNKNOWN_CLOSING)
			direction = direction_of(sk, protocol, from);
	}
	fresh->conn.flags = veiled(flags, nothing);
	unknown = veiled(unknown, nothing);
	fresh->phase = unknown * (PHASE_MATCHED | PHASE_UNKNOWN);
	begin(fresh, sk, protocol, veiled(direction, nothing));
	return !unknown || tuple_wanted(&fresh->conn);
}

/* The changes that say something; the others are looked at by nobody. */
static __always_inline bool noteworthy(int to)
{
	return is_one_of(to, 1U << STATE_ESTABLISHED | 1U << STATE_SYN_SENT | 1U << STATE_FIN_WAIT1 |
				     1U << STATE_CLOSE | 1U << STATE_CLOSE_WAIT | 1U << STATE_LISTEN);
}

/*
 * An entry of a connection that must be over, for another one begins in its memory. Only an attempt becomes
 * established with an entry, or a fast open that was accepted before.
 */
static __always_inline bool stale(const struct sock_state *state, int to)
{
	if (to == STATE_SYN_SENT)
		return true;
	return to == STATE_ESTABLISHED && !(state->phase & PHASE_ATTEMPT) &&
	       (state->established || !(state->phase & PHASE_ACCEPTED));
}

static __always_inline bool only_after_handshake(int state)
{
	return is_one_of(state, 1U << STATE_ESTABLISHED | 1U << STATE_CLOSE_WAIT | 1U << STATE_LAST_ACK |
					1U << STATE_FIN_WAIT2 | 1U << STATE_CLOSING);
}

/* Of an attempt: its SYN was acknowledged. */
static __always_inline bool succeeded(const struct sock *sk)
{
	const struct tcp_sock *tp = read_tcp(sk);

	return tp && READ_SOCK(tp, bytes_acked);
}

/* An attempt that both programs did not see succeed: it did not fail for that. */
static __always_inline void on_handshake_unseen(const struct sock *sk, struct sock_state *state)
{
	state->phase &= ~(PHASE_ATTEMPT | PHASE_IN_CONNECT);
	if (wanted(KIND_ESTABLISHED) && matched(sk, state))
		count_unseen();
}

/*
 * Both programs may have been called for the same change. Between the two calls no SYN leaves; where no hook sees that,
 * it takes a millisecond to fail and to try again.
 */
static __always_inline bool same_change(const struct sock_state *state, const struct sock *sk, int to)
{
	if (to == STATE_ESTABLISHED)
		return same_remote(state, sk);
	if (!(state->phase & PHASE_ATTEMPT))
		return false;
	if (!state->conn.subflow_of && state->conn.tid != (__u32)bpf_get_current_pid_tgid())
		return false;
	return !state->started || (!settings.syn_hook && bpf_ktime_get_ns() - state->started < 1000000);
}

static __always_inline int on_state(const struct sock *sk, int from, int to)
{
	struct sock_state *state, fresh = {};
	__u32 nothing = no_bits(sk);
	__u8 protocol = protocol_of(sk);

	if (!protocol || from == to)
		return 0;
	if (to == STATE_LISTEN) {
		on_listen(sk);
		return 0;
	}
	if (from == STATE_LISTEN && to == STATE_CLOSE) {
		on_listen_end(sk);
		return 0;
	}
	if (!noteworthy(to))
		return 0;
	from = veiled(from, nothing);
	to = veiled(to, nothing);
	state = state_of(sk);
	if (state && stale(state, to)) {
		if (same_change(state, sk, to))
			return 0;
		if (end_is_missing(state))
			count_unseen();
		state = NULL;
	}
	if (to == STATE_FIN_WAIT1 || to == STATE_CLOSE_WAIT) {
		if (state && !(state->phase & (PHASE_LOCAL_FIRST | PHASE_REMOTE_FIRST)))
			state->phase |= to == STATE_FIN_WAIT1 ? PHASE_LOCAL_FIRST : PHASE_REMOTE_FIRST;
		if (state && to == STATE_FIN_WAIT1)
			note_heard(sk, state);
		return 0;
	}
	if (!state || to == STATE_SYN_SENT) {
		enum beginning beginning = veiled(beginning_of(sk, from, to), nothing);

		from = veiled(from, nothing);
		to = veiled(to, nothing);
		if (!begin_anew(&fresh, sk, protocol, beginning, from, nothing))
			return 0;
		if (beginning == BEGINS_OUTBOUND) {
			on_attempt(sk, &fresh);
			return 0;
		}
		if (beginning == BEGINS_INBOUND) {
			on_inbound(sk, &fresh);
			if (protocol == PROTO_MPTCP)
				begin_mptcp_count(sk);
			return 0;
		}
		if (to == STATE_ESTABLISHED)
			remember(sk, &fresh);
		state = &fresh;
	}
	barrier_var(state);
	if (to == STATE_CLOSE) {
		if (state->phase & PHASE_ATTEMPT && only_after_handshake(from))
			on_handshake_unseen(sk, state);
		if (from == STATE_SYN_SENT || state->phase & PHASE_ATTEMPT)
			on_attempt_end(sk, state);
		else if (from == STATE_SYN_RECV && !(state->phase & PHASE_ACCEPTED))
			forget(sk);
		else
			on_close(sk, state, from);
		return 0;
	}
	if (from == STATE_SYN_SENT || state->phase & PHASE_ATTEMPT)
		on_outbound(sk, state);
	else
		/* A fast open was accepted before its handshake was over. */
		state->established = bpf_ktime_get_ns();
	if (protocol == PROTO_MPTCP)
		begin_mptcp_count(sk);
	return 0;
}

/* What never came to an end by its state: a pending attempt whose return nobody saw, an entry made too late. */
static __always_inline int on_destroy(const struct sock *sk)
{
	struct sock_state *state = state_of(sk);

	if (settings.attempt_hook == ATTEMPT_SYSCALL) {
		__u64 key = (__u64)sk;

		/* To look first costs less than to take the lock for nothing. */
		if (bpf_map_lookup_elem(&uring_attempts, &key))
			bpf_map_delete_elem(&uring_attempts, &key);
	}
	if (!state)
		return 0;
	if (state->phase & PHASE_PENDING && matched(sk, state))
		report_failed(state, sk, ERROR_UNKNOWN);
	else {
		if (state->phase & PHASE_ATTEMPT && succeeded(sk))
			on_handshake_unseen(sk, state);
		if (end_is_missing(state))
			count_unseen();
	}
	forget(sk);
	return 0;
}

/*
 * The kernel skipped the first program, as it seems; whether that is so. A task that was moved to another CPU between
 * the two programs finds no note either: then the connection's end was told already, and has left no entry. If it was
 * not, it counts as passed by.
 */
static __always_inline bool stands_in(const struct sock *sk, int from, int to)
{
	if (may_be_preempted() && to == STATE_CLOSE && !state_of(sk) && beginning_of(sk, from, to) == UNKNOWN_CLOSING)
		return false;
	count_stood_in();
	return true;
}

/* Twice, for each way to attach them: `skipped.bpf.h` tells why there are three for a change of state. */
#define LIFETIME_PROGRAMS(kind, suffix)                                                                                \
	SEC(kind "/inet_sock_set_state")                                                                               \
	int BPF_PROG(state_##suffix, const struct sock *sk, const int from, const int to)                              \
	{                                                                                                              \
		note(sk, to);                                                                                          \
		if (noteworthy(to))                                                                                    \
			bpf_tail_call(ctx, &workers, 0);                                                               \
		return 0;                                                                                              \
	}                                                                                                              \
	SEC(kind "/inet_sock_set_state")                                                                               \
	int BPF_PROG(state_skipped_##suffix, const struct sock *sk, const int from, const int to)                      \
	{                                                                                                              \
		if (!noted(sk, to) && stands_in(sk, from, to) && noteworthy(to))                                       \
			bpf_tail_call(ctx, &workers, 0);                                                               \
		return 0;                                                                                              \
	}                                                                                                              \
	SEC(kind "/inet_sock_set_state")                                                                               \
	int BPF_PROG(state_worker_##suffix, const struct sock *sk, const int from, const int to)                       \
	{                                                                                                              \
		on_state(sk, from, to);                                                                                \
		bpf_tail_call(ctx, &workers, NO_WORKER);                                                               \
		return 0;                                                                                              \
	}                                                                                                              \
	SEC(kind "/tcp_destroy_sock")                                                                                  \
	int BPF_PROG(destroy_##suffix, const struct sock *sk)                                                          \
	{                                                                                                              \
		return on_destroy(sk);                                                                                 \
	}

#endif
