// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What packets tell at the sockets of this host: of names, of where they really go, and where no function can be probed of
 * the first SYN. These programs see every packet, so they leave early.
 */
#define TELLS_INLINE
#include "hello.bpf.h"
#include "message.bpf.h"
#include "nat.bpf.h"
#include "first_syn.bpf.h"

/* As on_first_syn(), and what it asks the kernel for is all in `seen`. */
static __always_inline void on_first_packet(const struct sock *sk, const struct bpf_sock *seen)
{
	struct sock_state *state = awaits_first_syn(sk);
	__u32 *local, *remote;

	if (!state)
		return;
	barrier_var(state);
	local = (__u32 *)state->conn.local_addr;
	remote = (__u32 *)state->conn.remote_addr;
	if (seen->family == AF_INET6) {
		local[0] = seen->src_ip6[0];
		local[1] = seen->src_ip6[1];
		local[2] = seen->src_ip6[2];
		local[3] = seen->src_ip6[3];
	} else {
		put_v4(state->conn.local_addr, seen->src_ip4);
	}
	take_connected(remote, seen);
	state->conn.local_port = seen->src_port;
	state->conn.remote_port = bpf_ntohs(seen->dst_port);
	if (seen->family == AF_INET6 && is_v4(state->conn.remote_addr))
		state->conn.flags |= CONN_V4_MAPPED;
	tell_first_syn(sk, state);
}

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
	if (!sk)
		return 0;
	address = address_of(sk);
	if (settings.syn_hook == SYN_PACKET)
		on_first_packet(address, sk);
	if (!take_layout(&layout, skb, true, true))
		return 0;
	take_connected(asked, sk);
	if (layout.remote_port == bpf_ntohs(sk->dst_port) && same_address(layout.remote, (const __u8 *)asked))
		return 0;
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

/*
 * A first SYN that does not come as far as packet_out(), as the host's own filter drops it, or as there is no way for
 * it. Other packets that are dropped have no socket, or none that is about to connect.
 */
static __always_inline int on_dropped(const struct sk_buff *skb)
{
	const struct sock *sk = BPF_CORE_READ(skb, sk);

	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_state) != STATE_SYN_SENT)
		return 0;
	return on_first_syn(sk);
}

SEC("tp_btf/kfree_skb")
int BPF_PROG(syn_dropped_btf, const struct sk_buff *skb)
{
	return on_dropped(skb);
}

SEC("raw_tp/kfree_skb")
int BPF_PROG(syn_dropped_raw, const struct sk_buff *skb)
{
	return on_dropped(skb);
}
