/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * DNS messages of those who ask.
 *
 * Which port is asked is the socket's knowledge, not the packet's: what leaves may be redirected already (as Docker
 * does with questions to its own resolver).
 */
#ifndef PYTRACECON_MESSAGE_BPF_H
#define PYTRACECON_MESSAGE_BPF_H

#include "packet.bpf.h"

#define DNS_PORT 53
#define PARTS 8               /* of one packet: three times the 4,096 bytes that resolvers announce to take */
#define STREAM_TOLD (1 << 20) /* bytes of one connection to a DNS server: a whole zone is nobody's lookup */

struct dns_socket {
	__u8 server[16];
	__u16 port;
	__u16 reserved[3];
};

/* Unconnected sockets, by cookie: whom they asked last, as the process said it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct dns_socket);
} dns_sockets __weak SEC(".maps");

/* Processes that answer from the DNS port. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} dns_servers __weak SEC(".maps");

static __always_inline void take_ancestors(struct message_event *event, struct task_struct *task)
{
	int at;

	__builtin_memset(event->ancestors, 0, sizeof(event->ancestors));
	for (at = 0; at < RELATIVES; at++) {
		task = BPF_CORE_READ(task, group_leader, real_parent, group_leader);
		if (!task || BPF_CORE_READ(task, tgid) <= 1 || cgroup_id(task) != event->asker.cgroup)
			break;
		event->ancestors[at].pid = BPF_CORE_READ(task, tgid);
		event->ancestors[at].born = BPF_CORE_READ(task, start_boottime);
	}
}

/* Who sends: the current task, unless the segment leaves in somebody else's time. */
static __always_inline void take_sender(struct message_event *event, struct sock *sk, bool tcp)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 thread = (__u64)BPF_CORE_READ(task, tgid) << 32 | (__u32)BPF_CORE_READ(task, pid);
	__u32 pid;

	__builtin_memset(&event->asker, 0, sizeof(event->asker));
	__builtin_memset(event->ancestors, 0, sizeof(event->ancestors));
	if (tcp && !BPF_CORE_READ(sk, sk_lock.owned))
		return;
	take_asker(&event->asker, task);
	take_ancestors(event, task);
	pid = event->asker.pid;
	if (asker_wanted(&event->asker, task)) {
		event->flags |= NAME_WANTED;
		event->asker.process = known_process(task, pid, event->asker.born);
	}
	if (bpf_map_lookup_elem(&libc_calls, &thread))
		event->flags |= NAME_WITHIN;
	if (bpf_map_lookup_elem(&dns_servers, &pid))
		event->flags |= NAME_BY_SERVER;
}

/* One record of at most `room` bytes of payload: the kernel wants to know how much is reserved when it verifies. */
static __always_inline void report_part(struct __sk_buff *skb, const struct message_event *head, __u32 from, __u32 at,
					__u32 length, const __u32 room)
{
	struct message_event *event = reserve_record(sizeof(*event) + room, KIND_MESSAGE);

	if (!event)
		return;
	__builtin_memcpy(&event->asker, &head->asker, sizeof(*head) - sizeof(head->header));
	event->at = at;
	event->length = load(skb, from + at, event + 1, length, room);
	submit(event);
}

static __always_inline void report_message(struct __sk_buff *skb, struct message_event *head, __u32 from)
{
	__u32 at = 0, left = head->size;
	int part;

	head->packet = next_id(skb);
	for (part = 0; part < PARTS - 1 && left > PART; part++) {
		report_part(skb, head, from, at, PART, PART);
		at += PART;
		left -= PART;
	}
	if (left <= 128)
		report_part(skb, head, from, at, left, 128);
	else if (left <= 512)
		report_part(skb, head, from, at, left, 512);
	else
		report_part(skb, head, from, at, left < PART ? left : PART, PART);
}

static __always_inline void take_peer(__u8 *to, struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET)
		put_v4(to, BPF_CORE_READ(sk, __sk_common.skc_daddr));
	else
		bpf_core_read(to, 16, &sk->__sk_common.skc_v6_daddr);
}

static __always_inline void note_server(void)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 pid = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), tgid);

	if (!bpf_map_lookup_elem(&dns_servers, &pid))
		bpf_map_update_elem(&dns_servers, &pid, &now, BPF_ANY);
}

/* Fills `head` if this is a DNS message; returns where it begins, or 0. */
static __always_inline __u32 on_datagram(struct __sk_buff *skb, struct bpf_sock *sk, bool sent,
					 struct message_event *head)
{
	__u16 port = bpf_ntohs(sk->dst_port);
	struct layout layout = {};
	struct dns_socket fresh = {.port = DNS_PORT}, *known;
	__u64 cookie;

	cookie = bpf_get_socket_cookie(skb);
	known = bpf_map_lookup_elem(&dns_sockets, &cookie);
	/* Whoever did not ask is not answered: a stranger cannot fill the ring. */
	if (!sent && !known)
		return 0;
	if (!take_layout(&layout, skb, false, sent) || skb->len <= layout.payload)
		return 0;
	if (port)
		take_peer(fresh.server, address_of(sk));
	else if (sent && known)
		fresh = *known;
	else {
		__builtin_memcpy(fresh.server, layout.remote, sizeof(fresh.server));
		fresh.port = layout.remote_port;
	}
	if (fresh.port != DNS_PORT)
		return 0;
	if (sent && !known)
		bpf_map_update_elem(&dns_sockets, &cookie, &fresh, BPF_ANY);
	head->netns = netns_of(address_of(sk));
	head->size = skb->len - layout.payload;
	head->local_port = sk->src_port;
	__builtin_memcpy(head->server, fresh.server, sizeof(head->server));
	head->server_port = DNS_PORT;
	head->transport = IPPROTO_UDP_NUMBER;
	if (sent) {
		head->flags = NAME_SENT;
		take_sender(head, address_of(sk), false);
	}
	return layout.payload;
}

static __always_inline __u32 on_dns_segment(struct __sk_buff *skb, struct bpf_sock *sk, bool sent,
					    struct message_event *head)
{
	struct bpf_tcp_sock *tp = bpf_tcp_sock(sk);
	struct layout layout = {};
	__u64 acked, received;

	if (!tp)
		return 0;
	/* Both, or clang would choose between their addresses. */
	acked = tp->bytes_acked;
	received = tp->bytes_received;
	barrier_var(acked);
	barrier_var(received);
	if ((sent ? acked : received) > STREAM_TOLD)
		return 0;
	if (!take_layout(&layout, skb, true, sent) || skb->len <= layout.payload)
		return 0;
	head->netns = netns_of(address_of(sk));
	head->size = skb->len - layout.payload;
	head->seq = layout.seq;
	head->local_port = sk->src_port;
	take_peer(head->server, address_of(sk));
	head->server_port = DNS_PORT;
	head->transport = IPPROTO_TCP_NUMBER;
	if (sent) {
		head->flags = NAME_SENT;
		take_sender(head, address_of(sk), true);
	}
	return layout.payload;
}

/* Apart from the way of all other packets, which has no need of its stack. */
static __noinline int tell_message(struct __sk_buff *skb, bool tcp, bool sent)
{
	struct message_event head = {};
	struct bpf_sock *sk = skb->sk;
	__u32 from;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	from = tcp ? on_dns_segment(skb, sk, sent, &head) : on_datagram(skb, sk, sent, &head);
	if (from)
		report_message(skb, &head, from);
	return 0;
}

#endif
