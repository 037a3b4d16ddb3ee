/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What TCP counted by itself, turned into payload. No probe sits where data flow. */
#ifndef PYTRACECON_TOTALS_BPF_H
#define PYTRACECON_TOTALS_BPF_H

#include "filter.bpf.h"

#define STATES_WITH_FIN                                                                                                \
	(1U << STATE_FIN_WAIT1 | 1U << STATE_FIN_WAIT2 | 1U << STATE_CLOSING | 1U << STATE_LAST_ACK |                  \
	 1U << STATE_TIME_WAIT)

static __always_inline bool fin_queued(int state)
{
	return is_one_of(state, STATES_WITH_FIN);
}

/* 1 or 0, without a branch: the verifier follows each way that there is through what comes after. */
static __always_inline __u32 nonzero(__u64 number)
{
	__u64 negative = -number;

	barrier_var(negative);
	return (number | negative) >> 63;
}

/*
 * Of a socket whose lock somebody else may hold: an ACK adds to bytes_acked and moves snd_una right after. While that
 * stays where it is, what is read in between is of one moment; and read first, it is behind nothing that follows.
 */
#define LOOKS 3

static __always_inline __u32 read_unacked(const struct tcp_sock *tp, __u64 *acked)
{
	__u32 first, written;
	int look;

	for (look = 0; look < LOOKS; look++) {
		first = BPF_CORE_READ(tp, snd_una);
		*acked = BPF_CORE_READ(tp, bytes_acked);
		written = BPF_CORE_READ(tp, write_seq);
		if (BPF_CORE_READ(tp, snd_una) == first)
			break;
	}
	return written - first;
}

/* The same of what was received in order, and not read yet. */
static __always_inline __u32 read_unread(const struct tcp_sock *tp)
{
	__u32 first, next;
	int look;

	for (look = 0; look < LOOKS; look++) {
		first = BPF_CORE_READ(tp, copied_seq);
		next = BPF_CORE_READ(tp, rcv_nxt);
		if (BPF_CORE_READ(tp, copied_seq) == first)
			break;
	}
	return next - first;
}

/*
 * Sequence numbers count a SYN and a FIN as one byte each, and so do the kernel's byte counters: bytes_acked has
 * the SYN of an active opener (a passive one starts behind it) and the FIN once it is acknowledged,
 * bytes_received the peer's FIN once it came in order (tcp_fin() then sets SOCK_DONE). Is any payload not acknowledged?
 */
static __always_inline bool tcp_totals(struct totals *totals, const struct sock *sk, __u8 from, __u8 direction,
				       const bool locked)
{
	const struct tcp_sock *tp = read_tcp(sk);
	__u32 fin = fin_queued(from), syn_counted = direction & DIRECTION_OUT, done;
	__u64 acked, received;
	__u32 unacked;

	_Static_assert(DIRECTION_OUT == 1, "a number of bytes too");

	if (!tp)
		return false;
	if (locked) {
		acked = READ_SOCK(tp, bytes_acked);
		unacked = READ_SOCK(tp, write_seq) - READ_SOCK(tp, snd_una);
	} else {
		unacked = read_unacked(tp, &acked);
	}
	received = READ_SOCK(tp, bytes_received);
	done = READ_SOCK(sk, __sk_common.skc_flags) / SOCK_FLAG_DONE & 1;

	/* Before its SYN leaves, a deferred fast open has no sequence numbers yet. */
	if (from == STATE_SYN_SENT)
		unacked = nonzero(READ_SOCK(tp, packets_out)) * (unacked - nonzero(unacked));
	acked -= syn_counted & nonzero(acked);
	acked -= fin & ~nonzero(unacked) & nonzero(acked);
	unacked -= fin & nonzero(unacked);
	received -= done & nonzero(received);
	totals->tx_acked = acked;
	totals->tx_bytes = acked + unacked;
	totals->rx_bytes = received;
	totals->rtt = (__u64)(READ_SOCK(tp, srtt_us) >> 3) * 1000;
	totals->retransmits = READ_SOCK(tp, total_retrans);
	totals->state = from;
	return nonzero(unacked);
}

#define BOUND_TO_PORT 8 /* SOCK_BINDPORT_LOCK, net/sock.h */

/*
 * Who opened a connection whose beginning nobody saw? A child is a copy of its listener, backlog and all, but loses
 * the lock that bind() leaves. Where neither tells, the sequence numbers do: what was sent beyond payload and FIN is
 * the SYN of an active opener.
 */
static __always_inline __u8 direction_of(const struct sock *sk, __u8 protocol, int state)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	__u64 sent, payload;
	__u32 next;

	if (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & BOUND_TO_PORT)
		return DIRECTION_OUT;
	if (BPF_CORE_READ(sk, sk_max_ack_backlog))
		return DIRECTION_IN;
	if (protocol != PROTO_TCP)
		return DIRECTION_UNKNOWN;
	next = BPF_CORE_READ(tp, snd_nxt);
	sent = BPF_CORE_READ(tp, bytes_acked) + (__u32)(next - BPF_CORE_READ(tp, snd_una));
	payload = BPF_CORE_READ(tp, bytes_sent) - BPF_CORE_READ(tp, bytes_retrans);
	if (fin_queued(state) && next == BPF_CORE_READ(tp, write_seq))
		payload++;
	return sent == payload + 1 ? DIRECTION_OUT : sent == payload ? DIRECTION_IN : DIRECTION_UNKNOWN;
}

/*
 * An MPTCP connection counts for itself, over all its paths: data sequence numbers less where they began, with a
 * DATA_FIN of either side as one byte. 38967f424b5b (v6.5) counts what was received apart from it.
 */
static __always_inline bool mptcp_totals(struct totals *totals, const struct sock *sk, int from,
					 const struct sock_state *state)
{
	const struct mptcp_sock *msk = mptcp_sk(sk);
	__u64 written, acked = 0, received, sent, payload_acked;

	totals->state = from;
	if (!bpf_core_type_exists(struct mptcp_sock) || !state->tx_base)
		return false;
	/* Read by its place: an atomic64_t before 5.12. And first, or it might be ahead of what was written. */
	bpf_core_read(&acked, sizeof(acked), &msk->snd_una);
	written = BPF_CORE_READ(msk, write_seq);
	sent = written - state->tx_base;
	payload_acked = acked - state->tx_base;
	if (fin_queued(from) && sent) {
		sent--;
		if (acked == written)
			payload_acked--;
	}
	totals->tx_bytes = sent;
	totals->tx_acked = payload_acked;
	if (bpf_core_field_exists(msk->bytes_received)) {
		received = BPF_CORE_READ(msk, bytes_received);
	} else {
		received = BPF_CORE_READ(msk, ack_seq) - state->rx_base;
		if (from != STATE_ESTABLISHED && from != STATE_FIN_WAIT1 && received)
			received--;
	}
	totals->rx_bytes = received;
	return payload_acked < sent;
}

/* How many segments with data have come, and in the upper half which came twice last. */
static __always_inline __u64 heard(const struct tcp_sock *tp)
{
	return (__u64)READ_SOCK(tp, duplicate_sack[0].end_seq) << 32 | READ_SOCK(tp, data_segs_in);
}

/*
 * Data that comes to an end which takes no more is answered by a reset, and tcp_reset() has handled that before as one
 * that came in. So it is noted how much had come when that end sent its FIN; a reset that comes in has no data. What the
 * peer sent again since has, and is not answered so: then it is taken for the peer's, and so it is if the data came while
 * close() was at work, or after shutdown() of the one half and then the other.
 */
static __always_inline void note_heard(const struct sock *sk, struct sock_state *state)
{
	const struct tcp_sock *tp;

	if (state->conn.protocol != PROTO_TCP || !(READ_SOCK(sk, sk_shutdown) & RCV_SHUTDOWN))
		return;
	tp = read_tcp(sk);
	if (!tp)
		return;
	state->heard = heard(tp);
	state->phase |= PHASE_DEAF;
}

static __always_inline bool resets_itself(const struct sock *sk, int from, const struct sock_state *state)
{
	const struct tcp_sock *tp;
	__u64 now;

	if (!(state->phase & PHASE_DEAF) || !is_one_of(from, 1U << STATE_FIN_WAIT1 | 1U << STATE_FIN_WAIT2))
		return false;
	tp = read_tcp(sk);
	if (!tp)
		return false;
	now = heard(tp);
	return now != state->heard && now >> 32 == state->heard >> 32;
}

/* After the fact, from the state that was left and what the kernel noted: who ended it, and how. */
static __always_inline __u8 how_ended(const struct sock *sk, int from, const struct sock_state *state, bool fin_unacked)
{
	__u64 flags = READ_SOCK(sk, __sk_common.skc_flags);
	int error = READ_SOCK(sk, sk_err);
	bool dead = flags & SOCK_FLAG_DEAD, done = flags & SOCK_FLAG_DONE;

	/* tcp_reset() notes the error before the state changes, tcp_disconnect() after. */
	if (error == ERROR_ECONNRESET || error == ERROR_EPIPE)
		return resets_itself(sk, from, state) ? ENDED_LOCAL_RESET : ENDED_REMOTE_RESET;
	if (error == ERROR_ECONNABORTED)
		return ENDED_LOCAL_RESET;
	if (error)
		return ENDED_TIMEOUT;
	if (is_one_of(from,
		      1U << STATE_ESTABLISHED | 1U << STATE_CLOSE_WAIT | 1U << STATE_FIN_WAIT1 | 1U << STATE_SYN_RECV))
		return ENDED_LOCAL_RESET;
	/* Unread data or a zero linger after shutdown(): the socket has still its file, the peer sent no FIN. */
	if (from == STATE_FIN_WAIT2 && !dead && !done)
		return ENDED_LOCAL_RESET;
	if ((from == STATE_LAST_ACK || from == STATE_CLOSING) && fin_unacked)
		return ENDED_LOCAL_RESET;
	if (state->phase & PHASE_REMOTE_FIRST)
		return ENDED_REMOTE_CLOSE;
	if (state->phase & PHASE_LOCAL_FIRST)
		return ENDED_LOCAL_CLOSE;
	/* Older than the tracer: only the states that are reached one way tell. */
	if (from == STATE_LAST_ACK)
		return ENDED_REMOTE_CLOSE;
	if (from == STATE_FIN_WAIT2 || from == STATE_CLOSING)
		return ENDED_LOCAL_CLOSE;
	return ENDED_UNKNOWN;
}

#endif
