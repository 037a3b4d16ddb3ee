// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Datagrams that a process has taken: what it only looks at, and what is dropped, never is. */
#include "conversation.bpf.h"
#include "told.bpf.h"

#define MSG_PEEK 2
#define MSG_ERRQUEUE 0x2000

SEC("cgroup/recvmsg4")
int datagram_from_v4(struct bpf_sock_addr *context)
{
	__u32 addr = context->user_ip4;

	note_address(context, &addr, true, false);
	return 1;
}

SEC("cgroup/recvmsg6")
int datagram_from_v6(struct bpf_sock_addr *context)
{
	__u32 addr[4] = {context->user_ip6[0], context->user_ip6[1], context->user_ip6[2], context->user_ip6[3]};

	note_address(context, addr, false, false);
	return 1;
}

static __always_inline __u32 current_pid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
}

/* Both ends from the packet itself, which IP and UDP have left in one piece. */
static __always_inline bool take_packet(struct datagram *datagram, const struct sk_buff *skb, const bool vouched)
{
	const unsigned char *head = FIELD(vouched, skb, head);
	const unsigned char *network = head + FIELD(vouched, skb, network_header);
	const unsigned char *transport = head + FIELD(vouched, skb, transport_header);
	__be32 v4[5];
	__be16 port;

	if (bpf_probe_read_kernel(v4, sizeof(v4), network) || bpf_probe_read_kernel(&port, sizeof(port), transport))
		return false;
	datagram->key.remote_port = bpf_ntohs(port);
	if (*(__u8 *)v4 >> 4 == 4) {
		put_v4(datagram->key.remote, v4[3]);
		put_v4(datagram->local, v4[4]);
		return true;
	}
	return !bpf_probe_read_kernel(datagram->key.remote, 16, network + 8) &&
	       !bpf_probe_read_kernel(datagram->local, 16, network + 24);
}

/* One buffer may hold several, for a process that asked for that (UDP_GRO). */
static __always_inline __u16 packets_of(const struct sk_buff *skb, const bool vouched)
{
	const struct skb_shared_info *info = (void *)(FIELD(vouched, skb, head) + FIELD(vouched, skb, end));
	__u16 segments = BPF_CORE_READ(info, gso_segs);

	return segments ? segments : 1;
}

/* A look only: `length` is not positive, and the queue still has the datagram. */
static __always_inline int on_taken(const struct sock *sk, const struct sk_buff *skb, int length, const bool vouched)
{
	struct datagram datagram = {.bytes = length};

	if (length < 0 || (!length && FIELD(vouched, skb, users.refs.counter) != 1))
		return 0;
	if (FIELD(vouched, sk, sk_protocol) != IPPROTO_UDP_NUMBER || !take_packet(&datagram, skb, vouched))
		return 0;
	datagram.packets = packets_of(skb, vouched);
	count(sk, current_pid(), &datagram);
	return 0;
}

SEC("fentry/skb_consume_udp")
int BPF_PROG(datagram_taken_fentry, struct sock *sk, struct sk_buff *skb, int length)
{
	return on_taken(sk, skb, length, true);
}

SEC("kprobe/skb_consume_udp")
int BPF_KPROBE(datagram_taken_kprobe, struct sock *sk, struct sk_buff *skb, int length)
{
	return on_taken(sk, skb, length, false);
}

/* Without the packet: of a socket that is not connected, a process that does not ask from whom leaves that unknown. */
static __always_inline void take_from(struct datagram *datagram, const struct sock *sk, const bool vouched)
{
	datagram->key.remote_port = bpf_ntohs(FIELD(vouched, sk, __sk_common.skc_dport));
	if (datagram->key.remote_port) {
		if (FIELD(vouched, sk, __sk_common.skc_family) == AF_INET)
			put_v4(datagram->key.remote, FIELD(vouched, sk, __sk_common.skc_daddr));
		else
			BPF_CORE_READ_INTO(&datagram->key.remote, sk, __sk_common.skc_v6_daddr);
		return;
	}
	take_told(datagram, sk);
}

/* Other families have protocols by the same numbers, and a raw socket has that of what it carries. */
static __always_inline bool is_udp(const struct sock *sk, const bool vouched)
{
	__u16 family = FIELD(vouched, sk, __sk_common.skc_family);

	return FIELD(vouched, sk, sk_protocol) == IPPROTO_UDP_NUMBER &&
	       FIELD(vouched, sk, sk_type) == SOCK_DGRAM_NUMBER && (family == AF_INET || family == AF_INET6);
}

static __always_inline int on_received(const struct sock *sk, int length, int flags, const bool vouched)
{
	struct datagram datagram = {.bytes = length, .packets = 1};

	if (length < 0 || flags & (MSG_PEEK | MSG_ERRQUEUE) || !is_udp(sk, vouched))
		return 0;
	take_from(&datagram, sk, vouched);
	count(sk, current_pid(), &datagram);
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(datagram_received_btf, struct sock *sk, int length, int flags)
{
	return on_received(sk, length, flags, true);
}

SEC("raw_tp/sock_recv_length")
int BPF_PROG(datagram_received_raw, struct sock *sk, int length, int flags)
{
	return on_received(sk, length, flags, false);
}
