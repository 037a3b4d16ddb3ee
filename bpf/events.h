/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The wire contract: what the kernel side writes into the ring, and all of it.
 *
 * A record is a struct header, a struct conn and what its kind adds. Ports are in host order, addresses are
 * sixteen bytes in network order (IPv4 as ::ffff:a.b.c.d), times are CLOCK_MONOTONIC nanoseconds. Zero, the
 * address :: and an empty string mean "not known"; user space leaves such a key out.
 *
 * pytracecon/decode.py reads these structures; tests/unit/test_wire.py holds its table against the BTF of the
 * compiled object, field by field.
 */
#ifndef PYTRACECON_EVENTS_H
#define PYTRACECON_EVENTS_H

enum kind {
	KIND_CONNECT = 1,
	KIND_ESTABLISHED = 2,
	KIND_FAILED = 3,
	KIND_ACCEPT = 4,
	KIND_CLOSE = 5,
	KIND_EXISTING = 6,
};

enum protocol { PROTO_TCP = 1, PROTO_MPTCP = 2 };

enum direction { DIRECTION_UNKNOWN = 0, DIRECTION_OUT = 1, DIRECTION_IN = 2 };

enum owner_source {
	OWNER_UNKNOWN = 0,
	OWNER_CONNECT = 1,
	OWNER_ACCEPT = 2,
	OWNER_LISTEN = 3,
	OWNER_EXISTING = 4,
};

enum conn_flags {
	CONN_V4_MAPPED = 1,    /* IPv4 over an IPv6 socket */
	CONN_PRE_EXISTING = 2, /* older than the tracer */
	CONN_PARTIAL = 4,      /* a map was full: what earlier events knew of it is missing */
	CONN_FASTOPEN = 8,     /* connect: asked for; established: the peer took the data of the SYN */
};

enum ended {
	ENDED_UNKNOWN = 0,
	ENDED_LOCAL_CLOSE = 1,
	ENDED_REMOTE_CLOSE = 2,
	ENDED_LOCAL_RESET = 3,
	ENDED_REMOTE_RESET = 4,
	ENDED_TIMEOUT = 5,
};

struct header {
	__u64 time;
	__u32 lost; /* records that this CPU could not send so far; wraps */
	__u16 cpu;
	__u8 kind;
	__u8 words; /* size of the record in units of eight bytes */
};

struct conn {
	__u64 id;         /* never reused in a run */
	__u64 subflow_of; /* id of the MPTCP connection that this is a path of */
	__u64 cgroup;
	__u32 netns;
	__u32 pid; /* thread group; 0: no owner known */
	__u32 tid;
	__u32 uid;
	__u8 local_addr[16];
	__u8 remote_addr[16];
	__u16 local_port;
	__u16 remote_port;
	__u8 protocol;
	__u8 direction;
	__u8 owner;
	__u8 flags;
	char comm[16]; /* of the process, not of the thread */
	char thread[16];
};

struct connect_event {
	struct header header;
	struct conn conn;
};

struct established_event {
	struct header header;
	struct conn conn;
	__u64 latency;
	__u32 syn_retransmits;
	__u32 reserved;
};

#define ERROR_UNKNOWN 0xffff

struct failed_event {
	struct header header;
	struct conn conn;
	__u64 latency;
	__u32 syn_retransmits;
	__u16 error;   /* errno; 0: the process gave up; ERROR_UNKNOWN: nobody saw */
	__u8 syn_left; /* at least one SYN was sent */
	__u8 reserved;
};

struct accept_event {
	struct header header;
	struct conn conn;
	__u64 wait;
};

struct totals {
	__u64 tx_bytes; /* payload that TCP took from the process */
	__u64 tx_acked; /* of that, acknowledged */
	__u64 rx_bytes; /* payload received in order */
	__u64 rtt;
	__u32 retransmits;
	__u8 state; /* the kernel's TCP_… before this event */
	__u8 ended;
	__u8 reserved[2];
};

struct close_event {
	struct header header;
	struct conn conn;
	__u64 duration;
	struct totals totals;
};

struct existing_event {
	struct header header;
	struct conn conn;
	struct totals totals;
};

/* One slot a CPU, mapped by user space and never reset. wanted = delivered + lost. */
struct counters {
	__u64 wanted;
	__u64 lost_ring;    /* the ring was full */
	__u64 lost_ring_at; /* when that happened last */
	__u64 lost_map;     /* connections that a full map could not remember */
	__u64 lost_map_at;
	__u64 unseen; /* connections whose end no tracepoint told: their memory serves another one */
	__u64 unseen_at;
	__u64 ids;
};

#endif
