/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A conversation begins with its first datagram, and each of its datagrams is counted. */
#ifndef PYTRACECON_CONVERSATION_BPF_H
#define PYTRACECON_CONVERSATION_BPF_H

#include "datagram.bpf.h"

#define PORT_IS_BOUND 8 /* SOCK_BINDPORT_LOCK */

/* The socket's own is the one; what leaves may have another by now. */
static __always_inline void take_local(struct conn *conn, const struct datagram *datagram)
{
	if (is_any(conn->local_addr))
		__builtin_memcpy(conn->local_addr, datagram->local, sizeof(conn->local_addr));
}

static __always_inline __u8 first_direction(const struct sock *sk, const struct datagram_socket *socket, bool sent)
{
	/* Who spoke first is not known of what is older than the tracer: who has a port of its choice is spoken to. */
	if (socket->existing)
		return BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & PORT_IS_BOUND ? DIRECTION_IN : DIRECTION_OUT;
	return sent ? DIRECTION_OUT : DIRECTION_IN;
}

static __always_inline void tell_beginning(const struct conn *conn)
{
	struct beginning_event *event;

	if (!wanted(KIND_BEGINNING))
		return;
	event = reserve(sizeof(*event), KIND_BEGINNING, conn);
	if (event)
		submit(event);
}

static __always_inline void count_left_out(const struct conversation_key *key)
{
	__u64 now = bpf_ktime_get_ns();

	if (bpf_map_lookup_elem(&left_out, key))
		return;
	bpf_map_update_elem(&left_out, key, &now, BPF_ANY);
	count_forgotten();
}

/* The kernel's own sockets have no file. */
static __always_inline bool is_a_process_s(const struct sock *sk)
{
	return BPF_CORE_READ(sk, sk_socket, file);
}

static __always_inline void fill_conversation(struct conversation *fresh, const struct sock *sk,
					      const struct datagram_socket *socket, const struct datagram *datagram)
{
	struct conn *conn = &fresh->conn;

	fresh->sk = (__u64)sk;
	conn->id = next_id(sk);
	conn->protocol = PROTO_UDP;
	conn->direction = first_direction(sk, socket, datagram->sent);
	conn->netns = netns_of(sk);
	take_tuple(conn, sk);
	__builtin_memcpy(conn->remote_addr, datagram->key.remote, sizeof(conn->remote_addr));
	conn->remote_port = datagram->key.remote_port;
	take_local(conn, datagram);
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6 && is_v4(conn->remote_addr))
		conn->flags |= CONN_V4_MAPPED;
	if (socket->existing)
		conn->flags |= CONN_PRE_EXISTING;
	if (bpf_map_lookup_elem(&left_out, &datagram->key))
		conn->flags |= CONN_PARTIAL;
	fresh->wanted = is_a_process_s(sk) &&
			take_owner(conn, current_task(), datagram->sent ? OWNER_SEND : OWNER_RECEIVE) &&
			tuple_wanted(conn);
	fresh->last = bpf_ktime_get_ns();
	fresh->first = fresh->last;
}

static __noinline int begin_conversation(const struct sock *sk, struct datagram_socket *socket,
					 const struct datagram *datagram)
{
	__u32 zero = 0;
	struct shared *page = shared_page();
	struct conversation *fresh = bpf_map_lookup_elem(&blank_conversation, &zero);

	if (!fresh || !page || !socket || !datagram)
		return 0;
	if (bpf_map_update_elem(&conversations, &datagram->key, fresh, BPF_NOEXIST)) {
		if (bpf_map_lookup_elem(&conversations, &datagram->key))
			return 0; /* somebody else was faster */
		count_left_out(&datagram->key);
		ask_for_a_sweep(page);
		return 0;
	}
	fresh = bpf_map_lookup_elem(&conversations, &datagram->key);
	if (!fresh)
		return 0;
	fill_conversation(fresh, sk, socket, datagram);
	__sync_fetch_and_add(&page->conversations, 1);
	if (*(volatile __u32 *)&page->conversations == 1)
		ask_for_a_sweep(page); /* nobody is looking at the clock yet */
	if (socket->any) {
		socket->several = 1;
	} else {
		socket->first = datagram->key;
		socket->any = 1;
	}
	if (fresh->wanted)
		tell_beginning(&fresh->conn);
	return 0;
}

static __always_inline struct conversation *open_conversation(struct conversation_key *key)
{
	struct conversation *known = bpf_map_lookup_elem(&conversations, key);

	if (!known || !*(volatile __u8 *)&known->ending)
		return known;
	key->again = 1;
	return bpf_map_lookup_elem(&conversations, key);
}

static __always_inline struct conversation *count(const struct sock *sk, __u32 pid, struct datagram *datagram)
{
	struct datagram_socket *socket = datagram_socket_of(sk);
	struct conversation *known;

	datagram->key.pid = pid;
	if (!socket) {
		datagram->key.socket = (__u64)sk;
		count_left_out(&datagram->key);
		return NULL;
	}
	datagram->key.socket = socket->id;
	known = open_conversation(&datagram->key);
	if (known) {
		known->last = bpf_ktime_get_ns();
	} else {
		begin_conversation(sk, socket, datagram);
		known = bpf_map_lookup_elem(&conversations, &datagram->key);
		if (!known)
			return NULL;
	}
	if (datagram->sent) {
		__sync_fetch_and_add(&known->tx_bytes, datagram->bytes);
		__sync_fetch_and_add(&known->tx_packets, datagram->packets);
	} else {
		__sync_fetch_and_add(&known->rx_bytes, datagram->bytes);
		__sync_fetch_and_add(&known->rx_packets, datagram->packets);
	}
	/* What a socket for all addresses sends leaves from one of them. */
	take_local(&known->conn, datagram);
	return known;
}

#endif
