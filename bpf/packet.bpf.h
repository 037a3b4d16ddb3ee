/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A packet as a program of a cgroup sees it, at the socket that sends or receives it. */
#ifndef PYTRACECON_PACKET_BPF_H
#define PYTRACECON_PACKET_BPF_H

#include "asker.bpf.h"

#define TCP_FLAG_SYN_BIT 2 /* of the byte that has the flags */
#define PART 1536          /* bytes of payload in the largest record */

/* Where in a packet the payload is, and what its headers say of the other end. */
struct layout {
	__u32 payload;
	__u32 seq;
	__u16 remote_port;
	__u16 reserved;
	__u8 remote[16];
};

/* Whatever reaches a socket has its headers in one piece: IP, UDP and TCP have pulled them, or have just written them. */
static __always_inline bool take_layout(struct layout *layout, const struct __sk_buff *skb, bool tcp, bool sent)
{
	const __u8 *data = (const __u8 *)(long)skb->data, *end = (const __u8 *)(long)skb->data_end, *transport;
	__u32 length;

	if (data + 40 > end)
		return false;
	if (data[0] >> 4 == 4) {
		length = (data[0] & 15) * 4;
		if (data[9] != (tcp ? IPPROTO_TCP_NUMBER : IPPROTO_UDP_NUMBER))
			return false; /* as IPsec has wrapped it */
		put_v4(layout->remote, *(const __be32 *)(data + (sent ? 16 : 12)));
	} else {
		length = 40; /* a packet with further headers in between is not understood, and not told */
		if (data[6] != (tcp ? IPPROTO_TCP_NUMBER : IPPROTO_UDP_NUMBER))
			return false;
		__builtin_memcpy(layout->remote, data + (sent ? 24 : 8), 16);
	}
	transport = data + length;
	if (transport + (tcp ? 20 : 8) > end)
		return false;
	layout->remote_port = bpf_ntohs(*(const __be16 *)(transport + (sent ? 2 : 0)));
	layout->payload = length + 8;
	if (tcp) {
		layout->seq = bpf_ntohl(*(const __be32 *)(transport + 4));
		layout->payload = length + (transport[12] >> 4) * 4;
	}
	return true;
}

/* A TCP segment with neither SYN nor payload, as most of a short connection's are. Asked first: it takes no call. */
static __always_inline bool is_bare_segment(const struct __sk_buff *skb)
{
	const __u8 *data = (const __u8 *)(long)skb->data, *end = (const __u8 *)(long)skb->data_end, *transport;
	__u32 length = 40;

	if (data + 40 > end)
		return false;
	if (data[0] >> 4 == 4)
		length = (data[0] & 15) * 4;
	if (data[data[0] >> 4 == 4 ? 9 : 6] != IPPROTO_TCP_NUMBER)
		return false;
	transport = data + length;
	if (transport + 20 > end)
		return false;
	return !(transport[13] & TCP_FLAG_SYN_BIT) && skb->len == length + (transport[12] >> 4) * 4;
}

/* Whom the socket is connected to. Each by itself, or clang would choose between their addresses. */
static __always_inline void take_connected(__u32 *addr, const struct bpf_sock *socket)
{
	__u32 v4 = socket->dst_ip4, first = socket->dst_ip6[0], second = socket->dst_ip6[1];
	__u32 third = socket->dst_ip6[2], last = socket->dst_ip6[3];
	bool is_ipv4 = socket->family == AF_INET;

	barrier_var(v4);
	barrier_var(first);
	barrier_var(second);
	barrier_var(third);
	barrier_var(last);
	if (is_ipv4) {
		put_v4((__u8 *)addr, v4);
		return;
	}
	addr[0] = first;
	addr[1] = second;
	addr[2] = third;
	addr[3] = last;
}

static __always_inline struct sock *address_of(const void *sk)
{
	return (struct sock *)number_of(sk);
}

/* How much was loaded: all, or nothing. 5.10 must see that the length is not 0, and learns nothing from `if (length)`. */
static __always_inline __u32 load(struct __sk_buff *skb, __u32 from, void *to, __u32 length, const __u32 room)
{
	__u32 last = length - 1;

	barrier_var(last);
	if (last >= room || bpf_skb_load_bytes(skb, from, to, last + 1))
		return 0;
	return length;
}

#endif
