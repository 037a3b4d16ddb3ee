// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Segments that say that something went wrong: those sent again, and resets. */
#include "report.bpf.h"
#include "totals.bpf.h"

#define TCP_FIN 1

/* The connection's entry. One that is older than the tracer, and was found by nobody, gets one now. */
static __always_inline struct sock_state *entry_of(const struct sock *sk, __u8 protocol)
{
	struct sock_state *known = state_of(sk), fresh = {};

	if (known)
		return known;
	if (on(BY_OWNER) || settings.min_latency)
		return NULL;
	fresh.conn.flags = anything_forgotten() ? CONN_PARTIAL : CONN_PRE_EXISTING;
	fresh.phase = PHASE_MATCHED | PHASE_UNKNOWN;
	begin(&fresh, sk, protocol, direction_of(sk, protocol, BPF_CORE_READ(sk, __sk_common.skc_state)));
	return tuple_wanted(&fresh.conn) && remember(sk, &fresh) ? state_of(sk) : NULL;
}

/* Until a process takes it, it is the listener's, who may not pass the filters. */
static __always_inline bool passes(const struct sock *sk, struct sock_state *entry)
{
	if (on(BY_OWNER) && (is_waiting(entry) ? !(entry->phase & PHASE_LISTENER_WANTED) : !entry->conn.pid))
		return false;
	return matched(sk, entry);
}

static __always_inline void report_retransmit(const struct conn *conn, __u32 segments, __u8 segment, __u8 state)
{
	struct retransmit_event *event;

	if (!wanted(KIND_RETRANSMIT))
		return;
	event = reserve(sizeof(*event), KIND_RETRANSMIT, conn);
	if (!event)
		return;
	event->segments = segments;
	event->segment = segment;
	event->state = state;
	event->reserved[0] = event->reserved[1] = 0;
	submit(event);
}

/* What the packet carries; a FIN that goes with data is data. */
static __always_inline __u8 segment_of(const struct sk_buff *skb, __u8 state)
{
	const struct tcp_skb_cb *control = (const struct tcp_skb_cb *)&skb->cb;
	__u8 flags;

	if (state == STATE_SYN_SENT)
		return SEGMENT_SYN;
	flags = BPF_CORE_READ_BITFIELD_PROBED(control, tcp_flags);
	return flags & TCP_FIN && !BPF_CORE_READ(skb, len) ? SEGMENT_FIN : SEGMENT_DATA;
}

static __always_inline int on_retransmit(const struct sock *sk, const struct sk_buff *skb)
{
	const struct tcp_skb_cb *control = (const struct tcp_skb_cb *)&skb->cb;
	__u8 protocol = protocol_of(sk), state = BPF_CORE_READ(sk, __sk_common.skc_state);
	struct sock_state *entry;

	if (protocol != PROTO_TCP || !wanted(KIND_RETRANSMIT))
		return 0;
	entry = entry_of(sk, protocol);
	if (!entry || !passes(sk, entry))
		return 0;
	report_retransmit(&entry->conn, BPF_CORE_READ(control, tcp_gso_segs) ?: 1, segment_of(skb, state), state);
	return 0;
}

static __always_inline void take_request(struct conn *conn, const struct request_sock *request)
{
	__u16 family = BPF_CORE_READ(request, __req_common.skc_family);

	conn->netns = BPF_CORE_READ(request, __req_common.skc_net.net, ns.inum);
	conn->local_port = BPF_CORE_READ(request, __req_common.skc_num);
	conn->remote_port = bpf_ntohs(BPF_CORE_READ(request, __req_common.skc_dport));
	if (family == AF_INET) {
		put_v4(conn->local_addr, BPF_CORE_READ(request, __req_common.skc_rcv_saddr));
		put_v4(conn->remote_addr, BPF_CORE_READ(request, __req_common.skc_daddr));
	} else {
		BPF_CORE_READ_INTO(&conn->local_addr, request, __req_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&conn->remote_addr, request, __req_common.skc_v6_daddr);
	}
}

/* There is no socket of its own yet: it is the listener's, and its child will have the identity that it gets here. */
static __always_inline int on_synack(const struct sock *sk, const struct request_sock *request)
{
	struct listening *listener;
	struct handshake key = {};
	struct conn conn = {};
	__u64 *id, fresh;

	if (!wanted(KIND_RETRANSMIT))
		return 0;
	conn.protocol = protocol_of(sk);
	conn.direction = DIRECTION_IN;
	take_request(&conn, request);
	listener = listener_of(&conn);
	if (listener && listener->ambiguous)
		listener = NULL;
	if (listener)
		copy_owner(&conn, &listener->conn, OWNER_LISTEN);
	if (!conn.protocol || (on(BY_OWNER) && !(listener && listener->wanted)) || !tuple_wanted(&conn))
		return 0;
	handshake_of(&key, &conn, BPF_CORE_READ((const struct tcp_request_sock *)request, rcv_isn));
	id = bpf_map_lookup_elem(&handshakes, &key);
	fresh = id ? *id : next_id(request);
	if (!id)
		bpf_map_update_elem(&handshakes, &key, &fresh, BPF_ANY);
	conn.id = fresh;
	report_retransmit(&conn, 1, SEGMENT_SYNACK, STATE_SYN_RECV);
	return 0;
}

static __always_inline void report_reset(const struct conn *conn, bool sent, __u8 state)
{
	struct reset_event *event = reserve(sizeof(*event), KIND_RESET, conn);

	if (!event)
		return;
	event->sent = sent;
	event->state = state;
	__builtin_memset(event->reserved, 0, sizeof(event->reserved));
	submit(event);
}

/* A process that closes with data unread leaves the state first, and then sends the reset. */
static __always_inline int on_reset(const struct sock *sk, bool sent)
{
	__u8 protocol, state;
	struct sock_state *entry;
	struct watched *last;

	if (!sk || !wanted(KIND_RESET))
		return 0;
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (state == STATE_LISTEN || state == STATE_TIME_WAIT || state == STATE_NEW_SYN_RECV)
		return 0;
	protocol = protocol_of(sk);
	if (protocol != PROTO_TCP)
		return 0;
	if (state == STATE_CLOSE) {
		last = watched_of(sk);
		if (last && last->to == STATE_CLOSE && last->wanted && tuple_wanted(&last->conn))
			report_reset(&last->conn, sent, last->from);
		return 0;
	}
	entry = entry_of(sk, protocol);
	if (entry && !sent && resets_itself(sk, state, entry))
		return 0; /* that is told as it is sent */
	if (entry && passes(sk, entry))
		report_reset(&entry->conn, sent, state);
	return 0;
}

/*
 * Since ad892e912b84 (v6.17) tcp_retransmit_skb also tells of what was not sent, with the error as a third argument; before,
 * a program that looks for it is refused. User space says which it is: to ask for a type that is not there makes libbpf
 * look for it in modules, which takes CAP_SYS_ADMIN.
 */
static __always_inline bool retransmit_failed(const unsigned long long *arguments)
{
	return settings.with_error && (int)arguments[2];
}

#define SEGMENT_PROGRAMS(kind, suffix)                                                                                 \
	SEC(kind "/tcp_retransmit_skb")                                                                                \
	int BPF_PROG(retransmit_##suffix, const struct sock *sk, const struct sk_buff *skb)                            \
	{                                                                                                              \
		return retransmit_failed(ctx) ? 0 : on_retransmit(sk, skb);                                            \
	}                                                                                                              \
	SEC(kind "/tcp_retransmit_synack")                                                                             \
	int BPF_PROG(synack_##suffix, const struct sock *sk, const struct request_sock *request)                       \
	{                                                                                                              \
		return on_synack(sk, request);                                                                         \
	}                                                                                                              \
	SEC(kind "/tcp_send_reset")                                                                                    \
	int BPF_PROG(reset_sent_##suffix, const struct sock *sk)                                                       \
	{                                                                                                              \
		return on_reset(sk, true);                                                                             \
	}                                                                                                              \
	SEC(kind "/tcp_receive_reset")                                                                                 \
	int BPF_PROG(reset_received_##suffix, const struct sock *sk)                                                   \
	{                                                                                                              \
		return on_reset(sk, false);                                                                            \
	}

SEGMENT_PROGRAMS("tp_btf", btf)
SEGMENT_PROGRAMS("raw_tp", raw)
