// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What packets tell of names, at the sockets of this host: DNS messages of those who ask, and the first bytes of
 * outbound connections where these look like TLS. These programs see every packet, so they leave early.
 *
 * Which port is asked is the socket's knowledge, not the packet's: what leaves may be redirected already (as Docker
 * does with questions to its own resolver).
 */
#include "asker.bpf.h"

#define DNS_PORT 53
#define PART 1536             /* bytes of payload in the largest record */
#define PARTS 8               /* of one packet: three times the 4,096 bytes that resolvers announce to take */
#define STREAM_TOLD (1 << 20) /* bytes of one connection to a DNS server: a whole zone is nobody's lookup */
#define HELLO_PARTS 4
#define HELLO_LARGEST                                                                                                  \
	(HELLO_PARTS * PART) /* of the stream, in which a ClientHello ends: those of today have 2,000 bytes */

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

/* Where in a packet the payload is. Both kinds of header begin with the ports. */
struct layout {
	__u32 transport;
	__u32 payload;
	__u32 seq;
	__u8 remote[16];
	__u16 remote_port;
};

static __always_inline bool take_layout(struct layout *layout, struct __sk_buff *skb, bool tcp, bool sent)
{
	__u8 version = 0, offset = 0;
	__u16 port = 0;

	if (bpf_skb_load_bytes(skb, 0, &version, 1))
		return false;
	if (version >> 4 == 4) {
		__u32 addr = 0;

		layout->transport = (version & 15) * 4;
		if (bpf_skb_load_bytes(skb, sent ? 16 : 12, &addr, 4))
			return false;
		put_v4(layout->remote, addr);
	} else {
		layout->transport = 40; /* a packet with further headers in between is not understood, and not told */
		if (bpf_skb_load_bytes(skb, 6, &version, 1) || version != (tcp ? 6 : 17) ||
		    bpf_skb_load_bytes(skb, sent ? 24 : 8, layout->remote, 16))
			return false;
	}
	if (bpf_skb_load_bytes(skb, layout->transport + (sent ? 2 : 0), &port, 2))
		return false;
	layout->remote_port = bpf_ntohs(port);
	layout->payload = layout->transport + 8;
	if (!tcp)
		return true;
	if (bpf_skb_load_bytes(skb, layout->transport + 12, &offset, 1) ||
	    bpf_skb_load_bytes(skb, layout->transport + 4, &layout->seq, 4))
		return false;
	layout->seq = bpf_ntohl(layout->seq);
	layout->payload = layout->transport + (offset >> 4) * 4;
	return true;
}

static __always_inline struct sock *address_of(const void *sk)
{
	struct sock *address = NULL;

	/* To the verifier a pointer has no bits: read it as bytes. */
	bpf_probe_read_kernel(&address, sizeof(address), &sk);
	return address;
}

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
	if (asker_wanted(&event->asker, task))
		event->flags |= NAME_WANTED;
	if (bpf_map_lookup_elem(&libc_calls, &thread))
		event->flags |= NAME_WITHIN;
	if (bpf_map_lookup_elem(&dns_servers, &pid))
		event->flags |= NAME_BY_SERVER;
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

	if (sent && sk->src_port == DNS_PORT)
		note_server();
	if (port && port != DNS_PORT)
		return 0;
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

	if (!tp || (sent ? tp->bytes_acked : tp->bytes_received) > STREAM_TOLD)
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

static __always_inline void report_hello(struct __sk_buff *skb, const struct conn *conn, __u32 from, __u32 at,
					 __u32 length, const __u32 room)
{
	struct hello_event *event = reserve(sizeof(*event) + room, KIND_HELLO, conn);

	if (!event)
		return;
	event->at = at;
	event->length = load(skb, from, event + 1, length, room);
	submit(event);
}

struct tls_start {
	__u8 type, major, minor, length[2]; /* of the record */
	__u8 handshake, size[3];
};

/* Where a ClientHello that begins here ends in the stream; 0 if this is none. */
static __always_inline __u32 hello_end(struct __sk_buff *skb, __u32 from, __u32 size)
{
	struct tls_start start = {};
	__u32 end;

	if (bpf_skb_load_bytes(skb, from, &start, 1) || start.type != 22)
		return 0;
	/* Cut that short, the rest comes in later segments. */
	if (size < sizeof(start) || bpf_skb_load_bytes(skb, from, &start, sizeof(start)))
		return HELLO_LARGEST;
	if (start.major != 3 || start.handshake != 1)
		return 0;
	end = sizeof(start) + ((__u32)start.size[0] << 16 | start.size[1] << 8 | start.size[2]);
	return end < HELLO_LARGEST ? end : HELLO_LARGEST;
}

static __always_inline void on_first_bytes(struct __sk_buff *skb, struct bpf_sock *sk)
{
	struct bpf_tcp_sock *tp = bpf_tcp_sock(sk);
	struct sock_state *state;
	struct layout layout = {};
	__u32 at, size, part;
	__u64 acked;

	if (!tp)
		return;
	acked = tp->bytes_acked; /* the SYN is counted */
	if (acked > HELLO_LARGEST || !take_layout(&layout, skb, true, true) || skb->len <= layout.payload)
		return;
	size = skb->len - layout.payload;
	at = layout.seq - tp->snd_una + (__u32)acked - 1;
	if (at == (__u32)-1)
		at = 0; /* fast open: the bytes that the SYN brings along */
	if (at >= HELLO_LARGEST)
		return;
	state = state_of(address_of(sk));
	if (!state || state->conn.direction != DIRECTION_OUT)
		return;
	if (!at) {
		state->hello_end = hello_end(skb, layout.payload, size);
	}
	for (part = 0; part < HELLO_PARTS; part++) {
		__u32 done = part * PART, left = size - done;

		if (done >= size || at + done >= state->hello_end)
			break;
		if (left <= 512)
			report_hello(skb, &state->conn, layout.payload + done, at + done, left, 512);
		else
			report_hello(skb, &state->conn, layout.payload + done, at + done, left < PART ? left : PART,
				     PART);
	}
}

static __always_inline int on_packet(struct __sk_buff *skb, bool sent)
{
	struct bpf_sock *sk = skb->sk;
	struct message_event head = {};
	__u32 from = 0;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	if (sk->protocol == IPPROTO_UDP_NUMBER)
		from = on_datagram(skb, sk, sent, &head);
	else if (sk->protocol == IPPROTO_TCP_NUMBER && bpf_ntohs(sk->dst_port) == DNS_PORT)
		from = on_dns_segment(skb, sk, sent, &head);
	else if (sk->protocol == IPPROTO_TCP_NUMBER && sent)
		on_first_bytes(skb, sk);
	if (from)
		report_message(skb, &head, from);
	return 1;
}

SEC("cgroup_skb/egress")
int packet_out(struct __sk_buff *skb)
{
	return on_packet(skb, true);
}

SEC("cgroup_skb/ingress")
int packet_in(struct __sk_buff *skb)
{
	return on_packet(skb, false);
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
