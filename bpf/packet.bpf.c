// SPDX-License-Identifier: GPL-2.0 OR MIT
/* What packets tell of names, and of where they really go, at the sockets of this host. These programs see every packet, so they leave early. */
#define TELLS_INLINE
#include "hello.bpf.h"
#include "message.bpf.h"
#include "nat.bpf.h"

/* Apart from the way of all other packets, which has no need of its stack. */
static __noinline int on_syn(struct __sk_buff *skb)
{
	struct layout layout = {};
	struct conn conn = {};
	struct bpf_sock *sk = skb->sk;
	struct sock *address;
	__u32 asked[4] = {};

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk || !take_layout(&layout, skb, true, true))
		return 0;
	take_connected(asked, sk);
	if (layout.remote_port == bpf_ntohs(sk->dst_port) && same_address(layout.remote, (const __u8 *)asked))
		return 0;
	address = address_of(sk);
	take_tuple(&conn, address);
	conn.netns = netns_of(address);
	report_nat(&conn, layout.remote, layout.remote_port, IPPROTO_TCP_NUMBER);
	return 0;
}

SEC("cgroup_skb/egress")
int packet_out(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u16 port;

	if (is_bare_segment(skb))
		return 1;
	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	port = bpf_ntohs(sk->dst_port);
	if (sk->protocol == IPPROTO_TCP_NUMBER) {
		if (sk->state == STATE_SYN_SENT)
			on_syn(skb);
		if (port == DNS_PORT)
			tell_message(skb, true, true);
		else
			on_first_bytes(skb, sk);
	} else if (sk->protocol == IPPROTO_UDP_NUMBER) {
		if (sk->src_port == DNS_PORT)
			note_server();
		if (!port || port == DNS_PORT)
			tell_message(skb, false, true);
	}
	return 1;
}

SEC("cgroup_skb/ingress")
int packet_in(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u16 port;

	if (!sk)
		return 1;
	port = bpf_ntohs(sk->dst_port);
	if (port && port != DNS_PORT)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	if (sk->protocol == IPPROTO_UDP_NUMBER)
		tell_message(skb, false, false);
	else if (port && sk->protocol == IPPROTO_TCP_NUMBER)
		tell_message(skb, true, false);
	return 1;
}

static __always_inline int on_unconnected(struct bpf_sock_addr *context, const __u32 *addr, bool v4)
{
	struct dns_socket fresh = {.port = bpf_ntohs(context->user_port)}, *known;
	__u64 cookie = bpf_get_socket_cookie(context);

	known = bpf_map_lookup_elem(&dns_sockets, &cookie);
	if (!known && fresh.port != DNS_PORT)
		return 1;
	if (v4)
		put_v4(fresh.server, addr[0]);
	else
		__builtin_memcpy(fresh.server, addr, sizeof(fresh.server));
	bpf_map_update_elem(&dns_sockets, &cookie, &fresh, BPF_ANY);
	return 1;
}

SEC("cgroup/sendmsg4")
int unconnected_v4(struct bpf_sock_addr *context)
{
	__u32 addr = context->user_ip4;

	return on_unconnected(context, &addr, true);
}

SEC("cgroup/sendmsg6")
int unconnected_v6(struct bpf_sock_addr *context)
{
	__u32 addr[4] = {context->user_ip6[0], context->user_ip6[1], context->user_ip6[2], context->user_ip6[3]};

	return on_unconnected(context, addr, false);
}
