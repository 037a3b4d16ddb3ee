/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Who and what a connection is, read from the kernel's own objects. */
#ifndef PYTRACECON_CONN_BPF_H
#define PYTRACECON_CONN_BPF_H

#include "emit.bpf.h"

/* The names that a process has: its own, and the calling thread's where that is another. */
static __always_inline void take_task(struct conn *conn, const struct task_struct *task, __u8 source)
{
	__u64 thread = thread_of(task);
	const struct task_struct *leader = task;

	conn->owner = source;
	conn->pid = thread >> 32;
	conn->tid = thread;
	conn->uid = user_of(task);
	conn->cgroup = group_of(task);
	if (conn->tid != conn->pid) {
		BPF_CORE_READ_STR_INTO(&conn->thread, task, comm);
		leader = BPF_CORE_READ(task, group_leader);
	}
	conn->born = BPF_CORE_READ(leader, start_boottime);
	BPF_CORE_READ_STR_INTO(&conn->comm, leader, comm);
}

static __always_inline void copy_owner(struct conn *to, const struct conn *from, __u8 source)
{
	to->owner = source;
	to->pid = from->pid;
	to->tid = from->tid;
	to->uid = from->uid;
	to->cgroup = from->cgroup;
	to->born = from->born;
	to->process = from->process;
	__builtin_memcpy(to->comm, from->comm, sizeof(to->comm));
	__builtin_memcpy(to->thread, from->thread, sizeof(to->thread));
}

static __always_inline void put_v4(__u8 *addr, __be32 v4)
{
	__u32 *word = (__u32 *)addr;

	word[0] = 0;
	word[1] = 0;
	word[2] = bpf_htonl(0xffff);
	word[3] = v4;
}

/*
 * The same of an address that lies at a multiple of eight bytes. In halves of which neither is known in part: the
 * verifier sees that it knows as much of an IPv6 address, and follows what comes after for both of them as one.
 */
static __always_inline void put_v4_in_halves(__u8 *addr, __be32 v4)
{
	__u64 *half = (__u64 *)addr;

	half[0] = 0;
	half[1] = (__u64)v4 << 32 | bpf_htonl(0xffff); /* x86-64 and arm64 are both little endian */
}

static __always_inline bool is_v4(const __u8 *addr)
{
	const __u32 *word = (const __u32 *)addr;

	return !word[0] && !word[1] && word[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_any(const __u8 *addr)
{
	const __u32 *word = (const __u32 *)addr;

	return !word[0] && !word[1] && (!word[2] || word[2] == bpf_htonl(0xffff)) && !word[3];
}

static __always_inline bool same_address(const __u8 *one, const __u8 *other)
{
	const __u64 *a = (const __u64 *)one, *b = (const __u64 *)other;

	return a[0] == b[0] && a[1] == b[1];
}

/* Keeps what is known already: after a failed attempt the kernel clears ports and addresses. */
static __always_inline void take_tuple(struct conn *conn, const struct sock *sk)
{
	__u16 family = READ_SOCK(sk, __sk_common.skc_family);
	__u16 port = bpf_ntohs(source_port(sk));

	/* The longest way first: the verifier sees that it knows all that the others come to, and follows them no further. */
	if (LIKELY(family == AF_INET6)) {
		BPF_CORE_READ_INTO(&conn->local_addr, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&conn->remote_addr, sk, __sk_common.skc_v6_daddr);
		if (is_v4(conn->remote_addr))
			conn->flags |= CONN_V4_MAPPED;
	} else if (family == AF_INET) {
		put_v4_in_halves(conn->local_addr, READ_SOCK(sk, __sk_common.skc_rcv_saddr));
		put_v4_in_halves(conn->remote_addr, READ_SOCK(sk, __sk_common.skc_daddr));
	}
	if (port)
		conn->local_port = port;
	port = bpf_ntohs(READ_SOCK(sk, __sk_common.skc_dport));
	if (port)
		conn->remote_port = port;
}

static __always_inline void listener_key_of(struct listener_key *key, const struct conn *conn)
{
	key->netns = conn->netns;
	key->port = conn->local_port;
	key->reserved = 0;
	__builtin_memcpy(key->addr, conn->local_addr, sizeof(key->addr));
}

static __always_inline __u32 netns_of(const struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}

/* The address itself, then any IPv4 address, then any address at all. */
static __always_inline struct listening *listener_of(const struct conn *conn)
{
	struct listener_key key = {};
	struct listening *found;

	listener_key_of(&key, conn);
	found = bpf_map_lookup_elem(&listeners, &key);
	if (found)
		return found;
	if (is_v4(conn->local_addr)) {
		put_v4(key.addr, 0);
		found = bpf_map_lookup_elem(&listeners, &key);
		if (found)
			return found;
	}
	__builtin_memset(key.addr, 0, sizeof(key.addr));
	return bpf_map_lookup_elem(&listeners, &key);
}

/*
 * Of IPPROTO_TCP and IPPROTO_MPTCP, else 0. The two differ in one bit, which is the result without a branch: the verifier
 * then follows what comes after once, and not for each of them.
 */
static __always_inline __u8 protocol_of(const struct sock *sk)
{
	__u32 number = READ_SOCK(sk, sk_protocol), is_mptcp = number >> 8 & 1;

	_Static_assert(IPPROTO_MPTCP_NUMBER == IPPROTO_TCP_NUMBER + 256 && PROTO_MPTCP == PROTO_TCP + 1, "one bit");
	barrier_var(is_mptcp);
	return (number & ~256) == IPPROTO_TCP_NUMBER ? PROTO_TCP + is_mptcp : 0;
}

/*
 * A small number as it is, of which the verifier knows no more than that. What follows is the same to it then whatever
 * led there, and it follows that once, and not for each value. `nothing` is no_bits().
 */
static __always_inline __u32 veiled(__u32 number, __u32 nothing)
{
	number = (number ^ nothing) & 127;
	barrier_var(number);
	return number;
}

/* 0 of a socket that protocol_of() knows: bits that its number does not have. */
static __always_inline __u32 no_bits(const struct sock *sk)
{
	__u32 nothing = READ_SOCK(sk, sk_protocol) >> 9;

	barrier_var(nothing);
	return nothing;
}

/* As protocol_of(), and PROTO_UDP. Other families have numbers of their own, and raw sockets those of what they carry. */
static __always_inline __u8 transport_of(const struct sock *sk)
{
	__u16 family = READ_SOCK(sk, __sk_common.skc_family), type = BPF_CORE_READ(sk, sk_type);

	if (family != AF_INET && family != AF_INET6)
		return 0;
	if (BPF_CORE_READ(sk, sk_protocol) == IPPROTO_UDP_NUMBER)
		return type == SOCK_DGRAM_NUMBER ? PROTO_UDP : 0;
	return type == SOCK_STREAM_NUMBER ? protocol_of(sk) : 0;
}

static __always_inline bool watches(void)
{
	return wanted(KIND_STATE) || wanted(KIND_RETRANSMIT) || wanted(KIND_RESET);
}

static __always_inline struct watched *watched_of(const struct sock *sk)
{
	__u64 key = (__u64)sk;

	return bpf_map_lookup_elem(&watched, &key);
}

static __always_inline void handshake_of(struct handshake *key, const struct conn *conn, __u32 first)
{
	key->netns = conn->netns;
	key->first = first;
	key->local_port = conn->local_port;
	key->remote_port = conn->remote_port;
	__builtin_memcpy(key->local_addr, conn->local_addr, sizeof(key->local_addr));
	__builtin_memcpy(key->remote_addr, conn->remote_addr, sizeof(key->remote_addr));
}

/* The one under which its first states were told, if they were. */
static __always_inline __u64 identity_of(const struct sock *sk)
{
	struct watched *known = watches() ? watched_of(sk) : NULL;

	if (!known || !known->offered)
		return next_id(sk);
	known->offered = 0;
	return known->conn.id;
}

static __always_inline void describe(struct conn *conn, const struct sock *sk, __u8 protocol, __u8 direction)
{
	struct sock *parent = protocol == PROTO_TCP ? subflow_parent(sk) : NULL;

	conn->protocol = protocol;
	conn->direction = direction;
	conn->netns = netns_of(sk);
	if (LIKELY(parent)) {
		struct sock_state *whole = state_of(parent);

		/* A path that joins later is opened by a kernel thread: it is the connection's owner's all the same. */
		if (whole) {
			conn->subflow_of = whole->conn.id;
			copy_owner(conn, &whole->conn, whole->conn.owner);
		}
	}
	take_tuple(conn, sk);
}

static __always_inline void begin(struct sock_state *state, const struct sock *sk, __u8 protocol, __u8 direction)
{
	state->conn.id = identity_of(sk);
	describe(&state->conn, sk, protocol, direction);
}

static __always_inline bool remember(const struct sock *sk, const struct sock_state *state)
{
	__u64 key = (__u64)sk;

	if (bpf_map_update_elem(&socks, &key, state, BPF_ANY)) {
		count_forgotten();
		return false;
	}
	return true;
}

#endif
