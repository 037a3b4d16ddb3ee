// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Datagrams, counted: as sent when they leave the socket (what cannot be sent never comes that far), as received when a
 * process has taken them (what it only looks at, and what is dropped, never is).
 */
#include "datagram.bpf.h"
#include "hello.bpf.h"
#include "nat.bpf.h"

#define MSG_PEEK 2
#define MSG_ERRQUEUE 0x2000
#define PORT_IS_BOUND 8 /* SOCK_BINDPORT_LOCK */
#define LOOKED_AT 4     /* datagrams of a conversation that may show what it is */

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

struct quic_start {
	__u8 first;
	__u8 version[4];
};

static __always_inline __u32 quic_version(const struct quic_start *start)
{
	return (__u32)start->version[0] << 24 | start->version[1] << 16 | start->version[2] << 8 | start->version[3];
}

/* A long header (RFC 8999) of a version that is in use: 1, 2, a draft's, or one that asks for negotiation. */
static __always_inline __u8 app_of(struct __sk_buff *skb, __u32 from)
{
	struct quic_start start = {};
	__u32 version;

	if (skb->len < from + 21 || bpf_skb_load_bytes(skb, from, &start, sizeof(start)) || !(start.first & 0x80))
		return APP_UNKNOWN;
	version = quic_version(&start);
	if (version == 1 || version == 0x6b3343cf || version >> 8 == 0xff0000 || (version & 0x0f0f0f0f) == 0x0a0a0a0a)
		return start.first & 0x40 ? APP_QUIC : APP_UNKNOWN;
	return APP_UNKNOWN;
}

/*
 * The packets that QUIC's clients begin with (RFC 9001 and 9369 say how to read them), by datagram: what one call sent
 * as several (UDP_SEGMENT) is still in one piece here.
 */
static __noinline int tell_initials(struct __sk_buff *skb, const struct conversation *known, __u32 from, __u32 at)
{
	__u32 part, each = skb->gso_size, end = skb->len;

	if (!known)
		return 0;
	if (!each)
		each = end;
	for (part = 0; part < LOOKED_AT && at < LOOKED_AT && from < end; part++) {
		struct quic_start start = {};
		__u32 left = end - from, version;

		if (left < sizeof(start) || bpf_skb_load_bytes(skb, from, &start, sizeof(start)))
			break;
		version = quic_version(&start);
		if (left > each)
			left = each;
		if ((version == 1 && start.first >> 4 == 0xc) || (version == 0x6b3343cf && start.first >> 4 == 0xd))
			report_hello(skb, &known->conn, from, at, left < PART ? left : PART, PART);
		from += left;
		at++;
	}
	return 0;
}

/* What the task has said of this datagram's other end, or was told. It is good for one. */
static __always_inline bool take_told(struct datagram *datagram, const struct sock *sk)
{
	__u64 task = (__u64)current_task();
	struct told_address *told = bpf_map_lookup_elem(&told_addresses, &task);

	if (!told || told->sk != (__u64)sk || told->sent != datagram->sent)
		return false;
	__builtin_memcpy(datagram->key.remote, told->addr, sizeof(told->addr));
	datagram->key.remote_port = told->port;
	told->sk = 0;
	return true;
}

/* Each by itself, or clang would choose between their addresses. */
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

static __always_inline void note_address(struct bpf_sock_addr *context, const __u32 *addr, bool v4, bool sent)
{
	__u64 task = (__u64)current_task();
	struct bpf_sock *sk = context->sk;
	struct told_address fresh = {}, *known;

	if (!sk || (!sent && sk->dst_port)) /* one that is connected receives from nobody else */
		return;
	fresh.sk = (__u64)address_of(sk);
	fresh.port = bpf_ntohs(context->user_port);
	fresh.sent = sent;
	if (v4)
		put_v4(fresh.addr, addr[0]);
	else
		__builtin_memcpy(fresh.addr, addr, sizeof(fresh.addr));
	known = bpf_map_lookup_elem(&told_addresses, &task);
	if (known)
		*known = fresh;
	else
		bpf_map_update_elem(&told_addresses, &task, &fresh, BPF_ANY);
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

static __always_inline __u32 current_pid(void)
{
	return bpf_get_current_pid_tgid() >> 32;
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

SEC("cgroup/sock_release")
int datagram_socket_released(struct bpf_sock *context)
{
	__u64 key = (__u64)address_of(context);
	struct datagram_socket *socket;
	struct conversation *known;
	struct conversation_key first;
	struct shared *page = shared_page();
	bool several;

	if (context->protocol != IPPROTO_UDP_NUMBER)
		return 1;
	socket = bpf_map_lookup_elem(&datagram_sockets, &key);
	if (!socket || !page)
		return 1;
	if (socket->any) {
		first = socket->first;
		known = bpf_map_lookup_elem(&conversations, &first);
		if (known)
			end_conversation(&first, known, ENDED_CLOSED);
	}
	several = socket->several;
	bpf_map_delete_elem(&datagram_sockets, &key);
	if (several)
		ask_for_a_sweep(page);
	return 1;
}

static __always_inline int on_owner_ended(struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, tgid);
	__u64 since = born(task);

	if (!BPF_CORE_READ(task, signal, live.counter))
		bpf_map_update_elem(&ended_owners, &pid, &since, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(datagram_owner_btf, struct task_struct *task)
{
	return on_owner_ended(task);
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(datagram_owner_raw, struct task_struct *task)
{
	return on_owner_ended(task);
}

/* 0 for one that goes on. */
static __always_inline __u8 how_ended(const struct conversation_key *key, const struct conversation *known,
				      const struct shared *page)
{
	__u64 sk = known->sk, *ended;
	__u32 pid = key->pid;
	struct datagram_socket *socket = bpf_map_lookup_elem(&datagram_sockets, &sk);

	if (!socket || socket->id != key->socket)
		return ENDED_CLOSED;
	ended = bpf_map_lookup_elem(&ended_owners, &pid);
	if (ended && *ended == known->conn.born)
		return ENDED_OWNER_GONE;
	if ((__s64)(bpf_ktime_get_ns() - known->last) >= (__s64)page->idle)
		return ENDED_IDLE;
	return page->stopping ? ENDED_STOPPED : 0;
}

/* Run by user space, by the clock. It reads the ring meanwhile to nobody: half of that is left to other events. */
SEC("iter/bpf_map_elem")
int sweep(struct bpf_iter__bpf_map_elem *context)
{
	struct conversation_key *at = context->key, key;
	struct conversation *known = context->value;
	struct shared *page = shared_page();
	__u8 ended;

	if (!at || !known || !page)
		return 0;
	if (!known->first)
		return 0;
	key = *at;
	ended = how_ended(&key, known, page);
	if (!ended)
		return 0;
	if (bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&ring, BPF_RB_RING_SIZE) / 2) {
		page->left = 1;
		return 0;
	}
	end_conversation(&key, known, ended);
	return 0;
}
