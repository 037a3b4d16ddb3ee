// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Datagrams as they leave their socket: what cannot be sent never comes that far. */
#include "conversation.bpf.h"
#include "told.bpf.h"
#include "quic.bpf.h"
#include "nat.bpf.h"

/* Who is asked: what the process said, else the socket; a packet may be on its way to somebody else by now. */
static __always_inline void take_asked(struct datagram *datagram, const struct bpf_sock *socket, const struct sock *sk)
{
	__u16 port = bpf_ntohs(socket->dst_port);
	__u32 addr[4] = {};

	if (port) {
		take_connected(addr, socket);
		if (port == datagram->key.remote_port && same_address((__u8 *)addr, datagram->key.remote))
			return;
	}
	if (take_told(datagram, sk) || !port)
		return;
	__builtin_memcpy(datagram->key.remote, addr, sizeof(addr));
	datagram->key.remote_port = port;
}

/* Both ends and where the payload begins; 0 for what is no datagram of its own, but carries one. */
static __always_inline __u32 take_headers(struct datagram *datagram, const struct __sk_buff *skb)
{
	const __u8 *data = (const __u8 *)(long)skb->data, *end = (const __u8 *)(long)skb->data_end, *udp;
	__u32 length;

	if (data + 28 > end)
		return 0;
	if (data[0] >> 4 == 4) {
		if (data[9] != IPPROTO_UDP_NUMBER)
			return 0;
		length = (data[0] & 15) * 4;
		put_v4(datagram->local, *(const __be32 *)(data + 12));
		put_v4(datagram->key.remote, *(const __be32 *)(data + 16));
	} else {
		length = 40;
		if (data + 48 > end || data[6] != IPPROTO_UDP_NUMBER)
			return 0;
		__builtin_memcpy(datagram->local, data + 8, 16);
		__builtin_memcpy(datagram->key.remote, data + 24, 16);
	}
	udp = data + length;
	if (udp + 8 > end)
		return 0;
	datagram->key.remote_port = bpf_ntohs(*(const __be16 *)(udp + 2));
	return length + 8;
}

static __noinline int on_sent(struct __sk_buff *skb)
{
	struct datagram datagram = {.sent = 1};
	struct bpf_sock *sk = skb->sk;
	struct conversation *known;
	const struct sock *address;
	__u16 real_port;
	__u8 real[16];
	__u32 payload;
	__u64 before;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	payload = take_headers(&datagram, skb);
	if (!payload || skb->len < payload)
		return 0;
	address = address_of(sk);
	__builtin_memcpy(real, datagram.key.remote, sizeof(real));
	real_port = datagram.key.remote_port;
	take_asked(&datagram, sk, address);
	datagram.bytes = skb->len - payload;
	datagram.packets = skb->gso_segs ? skb->gso_segs : 1;
	known = count(address, BPF_CORE_READ(current_task(), tgid), &datagram);
	if (!known)
		return 0;
	before = known->tx_packets - datagram.packets;
	if (before >= LOOKED_AT)
		return 0;
	if (!before && known->wanted &&
	    (real_port != known->conn.remote_port || !same_address(real, known->conn.remote_addr)))
		report_nat(&known->conn, real, real_port, IPPROTO_UDP_NUMBER);
	if (!known->app)
		known->app = app_of(skb, payload);
	if (known->app == APP_QUIC && known->wanted && known->conn.direction == DIRECTION_OUT && wanted(KIND_BEGINNING))
		tell_initials(skb, known, payload, before);
	return 0;
}

SEC("cgroup_skb/egress")
int datagram_sent(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (sk && sk->protocol == IPPROTO_UDP_NUMBER && sk->type == SOCK_DGRAM_NUMBER)
		on_sent(skb);
	return 1;
}

SEC("cgroup/sendmsg4")
int datagram_to_v4(struct bpf_sock_addr *context)
{
	__u32 addr = context->user_ip4;

	note_address(context, &addr, true, true);
	return 1;
}

SEC("cgroup/sendmsg6")
int datagram_to_v6(struct bpf_sock_addr *context)
{
	__u32 addr[4] = {context->user_ip6[0], context->user_ip6[1], context->user_ip6[2], context->user_ip6[3]};

	note_address(context, addr, false, true);
	return 1;
}
