/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* UDP has no counters of its own: here is what one process and one address sent each other over one socket. */
#ifndef PYTRACECON_DATAGRAM_BPF_H
#define PYTRACECON_DATAGRAM_BPF_H

#include "filter.bpf.h"

struct conversation_key {
	__u64 socket; /* its number: addresses are used again */
	__u32 pid;
	__u16 remote_port;
	__u16 again; /* 1: the one with 0 is about to be told, and taken out */
	__u8 remote[16];
};

struct conversation {
	struct conn conn;
	__u64 sk;
	__u64 first; /* when its first datagram passed, and its last; 0: the rest is yet to be filled in */
	__u64 last;
	__u64 tx_bytes;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 rx_packets;
	__u64 listed; /* in which snapshot last */
	__u8 app;     /* enum app */
	__u8 wanted;  /* it passes the filters */
	__u8 ending;  /* nothing may be added any more */
	__u8 reserved[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct conversation_key);
	__type(value, struct conversation);
} conversations __weak SEC(".maps");

/* One that has not begun. The stack of a program has no room for it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct conversation);
} blank_conversation __weak SEC(".maps");

/* Conversations for which there was no room: each is counted once, and marked should it find room later. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct conversation_key);
	__type(value, __u64);
} left_out __weak SEC(".maps");

struct datagram_socket {
	__u64 id;
	struct conversation_key first; /* its first conversation, mostly the only one */
	__u8 any;                      /* there was one, … */
	__u8 several;                  /* … and another */
	__u8 existing;                 /* older than the tracer */
	__u8 reserved;
	__u32 holder; /* a process that holds it, as the last snapshot saw, … */
	__u32 fd;     /* … and its number for it */
	__u32 more_reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct datagram_socket);
} datagram_sockets __weak SEC(".maps");

/* What the socket's cgroup was told of a datagram that is being sent or received, by task. */
struct told_address {
	__u64 sk; /* 0: it was of use already */
	__u8 addr[16];
	__u16 port;
	__u8 sent; /* or received */
	__u8 reserved[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct told_address);
} told_addresses __weak SEC(".maps");

/* Processes that ended, by number: when each had started. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} ended_owners __weak SEC(".maps");

/* A datagram, as it passes between a process and its socket. */
struct datagram {
	struct conversation_key key;
	__u8 local[16]; /* ::, if only the socket knows */
	__u32 bytes;
	__u16 packets;
	__u8 sent;
	__u8 app;
};

/* Where BTF vouches for a pointer a field is one instruction, else a call. */
#define FIELD(vouched, pointer, field) ((vouched) ? (pointer)->field : BPF_CORE_READ(pointer, field))

static __always_inline struct datagram_socket *datagram_socket_of(const struct sock *sk)
{
	__u64 key = (__u64)sk;
	struct datagram_socket fresh = {}, *known = bpf_map_lookup_elem(&datagram_sockets, &key);

	if (known)
		return known;
	fresh.id = next_id(sk);
	bpf_map_update_elem(&datagram_sockets, &key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&datagram_sockets, &key);
}

static __always_inline void ask_for_a_sweep(struct shared *page)
{
	void *record;

	page->sweep = 1;
	if (*(volatile __u32 *)&page->resting == READER_AWAKE)
		return;
	record = bpf_ringbuf_reserve(&ring, 8, 0);
	if (record)
		bpf_ringbuf_discard(record, BPF_RB_FORCE_WAKEUP);
}

static __always_inline void report_flow(const struct conversation *known, __u8 ended)
{
	struct flow_event *event = reserve(sizeof(*event), KIND_FLOW, &known->conn);

	if (!event)
		return;
	event->duration = known->last - known->first;
	event->idle = event->header.time > known->last ? event->header.time - known->last : 0;
	event->tx_bytes = known->tx_bytes;
	event->rx_bytes = known->rx_bytes;
	event->tx_packets = known->tx_packets;
	event->rx_packets = known->rx_packets;
	event->ended = ended;
	event->app = known->app;
	__builtin_memset(event->reserved, 0, sizeof(event->reserved));
	submit(event);
}

/* What is counted is what was counted by the time it is told: whoever comes later begins another one. */
static __always_inline void end_conversation(const struct conversation_key *key, struct conversation *known, __u8 ended)
{
	struct shared *page = shared_page();

	*(volatile __u8 *)&known->ending = 1;
	if (known->wanted && wanted(KIND_FLOW))
		report_flow(known, ended);
	if (!bpf_map_delete_elem(&conversations, key) && page)
		__sync_fetch_and_add(&page->conversations, -1);
}

#endif
