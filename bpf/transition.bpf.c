// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Every change of a TCP socket's state, for those who ask for them. These programs run ahead of those that follow
 * connections: what is known of one is still there when it ends.
 */
#include "watch.bpf.h"
#include "totals.bpf.h"

static __always_inline bool begins_anew(int from, int to)
{
	return from == STATE_CLOSE || (from == STATE_LISTEN && to != STATE_CLOSE);
}

/* Its ports come a few instructions later. */
static __always_inline bool waits_for_ports(int from, int to)
{
	return to == STATE_SYN_SENT || (from == STATE_LISTEN && to != STATE_CLOSE);
}

/* Both run in the system call of whoever asks for it. */
static __always_inline bool is_asked_for(int from, int to)
{
	return from == STATE_CLOSE && (to == STATE_SYN_SENT || to == STATE_LISTEN);
}

/* False if nothing can be said of it. */
static __always_inline bool watch(struct watched *fresh, const struct sock *sk, __u8 protocol, int from, int to)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct sock_state *entry = begins_anew(from, to) ? NULL : state_of(sk);
	struct listening *listener;

	if (entry) {
		fresh->conn = entry->conn;
		fresh->wanted = 1;
		return true;
	}
	fresh->offered = begins_anew(from, to);
	fresh->conn.id = next_id(sk);
	if (is_asked_for(from, to)) {
		describe(&fresh->conn, sk, protocol, to == STATE_LISTEN ? DIRECTION_IN : DIRECTION_OUT);
		fresh->wanted = 1;
		if (!fresh->conn.subflow_of)
			fresh->wanted =
				take_owner(&fresh->conn, task, to == STATE_LISTEN ? OWNER_LISTEN : OWNER_CONNECT);
		return true;
	}
	if (from == STATE_LISTEN) {
		describe(&fresh->conn, sk, protocol, DIRECTION_IN);
		listener = listener_of(&fresh->conn);
		fresh->wanted = !on(BY_OWNER);
		if (listener && !listener->ambiguous) {
			copy_owner(&fresh->conn, &listener->conn, OWNER_LISTEN);
			fresh->wanted = listener->wanted;
		}
		return true;
	}
	if (on(BY_OWNER))
		return false;
	describe(&fresh->conn, sk, protocol, direction_of(sk, protocol, from));
	fresh->conn.flags |= anything_forgotten() ? CONN_PARTIAL : CONN_PRE_EXISTING;
	fresh->wanted = 1;
	return true;
}

/* If its handshake was told of before there was a socket, it is known by the identity that it has from there. */
static __always_inline void take_handshake(struct watched *known, const struct sock *sk)
{
	struct handshake key = {};
	__u64 *id;

	handshake_of(&key, &known->conn, BPF_CORE_READ(tcp_sk(sk), copied_seq) - 1);
	id = bpf_map_lookup_elem(&handshakes, &key);
	if (!id)
		return;
	known->conn.id = *id;
	bpf_map_delete_elem(&handshakes, &key);
}

/* A path of an MPTCP connection is linked to it after its first state, and before it is established. */
static __always_inline void take_parent(struct conn *conn, const struct sock *sk)
{
	struct sock *parent = conn->protocol == PROTO_TCP ? subflow_parent(sk) : NULL;
	const struct sock_state *whole = parent ? state_of(parent) : NULL;

	if (!whole)
		return;
	conn->subflow_of = whole->conn.id;
	if (whole->conn.pid)
		copy_owner(conn, &whole->conn, whole->conn.owner);
}

/* What is known by now: of the connection if it is followed, else of the socket. */
static __always_inline void update(struct watched *known, const struct sock *sk, int from)
{
	const struct sock_state *entry = state_of(sk);

	if (entry) {
		known->conn = entry->conn;
		return;
	}
	if (from == STATE_SYN_RECV) {
		take_tuple(&known->conn, sk);
		take_parent(&known->conn, sk);
		if (known->offered)
			take_handshake(known, sk);
	} else if (from != STATE_SYN_SENT && on(BY_OWNER)) {
		known->wanted = 0; /* who took it does not pass the filters */
	}
}

static __always_inline int on_transition(const struct sock *sk, int from, int to)
{
	__u64 key = (__u64)sk, now = bpf_ktime_get_ns();
	__u8 protocol = protocol_of(sk);
	struct watched *known, fresh = {};

	if (!protocol || from == to)
		return 0;
	known = bpf_map_lookup_elem(&watched, &key);
	if (!known || begins_anew(from, to)) {
		if (!watch(&fresh, sk, protocol, from, to))
			return 0;
		bpf_map_update_elem(&watched, &key, &fresh, BPF_ANY);
		known = bpf_map_lookup_elem(&watched, &key);
		if (!known)
			return 0;
	} else {
		update(known, sk, from);
		report_waiting(known);
	}
	barrier_var(known);
	known->in_old = known->since ? now - known->since : 0;
	known->since = now;
	known->from = from;
	known->to = to;
	if (waits_for_ports(from, to))
		known->waits = now;
	else
		report_state(known, now, BPF_CORE_READ(sk, sk_err));
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(transition_btf, const struct sock *sk, const int from, const int to)
{
	return on_transition(sk, from, to);
}

SEC("raw_tp/inet_sock_set_state")
int BPF_PROG(transition_raw, const struct sock *sk, const int from, const int to)
{
	return on_transition(sk, from, to);
}
