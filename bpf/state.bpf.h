/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What is remembered between hooks: one entry a socket, one a listening address. */
#ifndef PYTRACECON_STATE_BPF_H
#define PYTRACECON_STATE_BPF_H

#include "compat.bpf.h"
#include "events.h"
#include "settings.h"

/* In wire.bpf.c. */
extern const volatile struct settings settings;

enum phase {
	PHASE_ATTEMPT = 1,    /* an outbound attempt that has no outcome yet */
	PHASE_IN_CONNECT = 2, /* the process is still inside the connect() that began it */
	PHASE_PENDING = 4,    /* it ended inside connect(): the errno comes with the return */
	PHASE_SYN_LEFT = 8,
	PHASE_ACCEPTED = 16,
	PHASE_CLOSED = 32,      /* over and reported, but still in the accept queue: keeps its identity */
	PHASE_LOCAL_FIRST = 64, /* this end sent the first FIN */
	PHASE_REMOTE_FIRST = 128,
	PHASE_MATCHED = 256,         /* passed the filters on both ends */
	PHASE_LISTENER_WANTED = 512, /* the listener's process passes them too */
	PHASE_UNKNOWN = 1024,        /* had no entry: older than the tracer, or one that a full map forgot */
	PHASE_DEAF = 2048,           /* took no more data when it sent its FIN */
};

struct sock_state {
	__u32 phase; /* enum phase */
	__u32 error; /* what the socket reported, or an MPTCP connection's path: sk_err is cleared by who reads it */
	struct conn conn;
	__u64 started; /* first SYN */
	__u64 established;
	__u64 hello_end; /* how far the stream is told, for the server's name in it */
	__u64 tx_base;   /* MPTCP: sequence numbers at the start of the connection */
	union {
		__u64 rx_base;
		__u64 heard; /* TCP, with PHASE_DEAF: heard() at that time */
	};
	__u64 listed; /* the last snapshot that it is in */
};

/* Preallocated: kernels before 34dd3bad1a6f (v6.1) warn about tracing programs with maps that are not. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct sock_state);
} socks __weak SEC(".maps");

/* A socket whose states are told: one that listens, and a child in the handshake, have no entry above. */
struct watched {
	__u64 since;  /* when it came into its state; 0: nobody saw */
	__u64 waits;  /* when it did so without its ports: that is yet to be told */
	__u64 in_old; /* … and how long it was in the state before */
	__u8 from;    /* the last change */
	__u8 to;
	__u8 wanted;  /* its owner passes the filters */
	__u8 offered; /* its identity is that of the entry that will be made for it */
	__u32 reserved;
	struct conn conn;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct watched);
} watched __weak SEC(".maps");

/* Handshakes whose SYN-ACK was sent again, by what the child will be known by; the ends alone are soon used again. */
struct handshake {
	__u32 netns;
	__u32 first; /* sequence number of the client's SYN */
	__u16 local_port;
	__u16 remote_port;
	__u8 local_addr[16];
	__u8 remote_addr[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct handshake);
	__type(value, __u64);
} handshakes __weak SEC(".maps");

struct listener_key {
	__u32 netns;
	__u16 port;
	__u16 reserved;
	__u8 addr[16];
};

struct listening {
	struct conn conn;
	__u32 sockets;  /* SO_REUSEPORT: several may share the address */
	__u8 ambiguous; /* … and belong to different processes: then nobody is named */
	__u8 wanted;    /* its owner passes the filters */
	__u8 reserved[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct listener_key);
	__type(value, struct listening);
} listeners __weak SEC(".maps");

/* Sockets that are counted there: one that several processes hold is met in each of them. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, __u32);
} counted_listeners __weak SEC(".maps");

/* A connect() under way, by task: the cgroup's hook of 5.10 may ask for no more than that. */
struct syscall_attempt {
	__u8 addr[16];
	__u32 fd;
	__u16 port;
	__u8 known; /* the cgroup's hook has filled in address and port */
	__u8 began; /* the socket came as far as SYN_SENT, … */
	__u64 sk;   /* … and this is it */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct syscall_attempt);
} syscall_attempts __weak SEC(".maps");

/* The same for io_uring, whose connect() may move from one thread to another: by socket. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct syscall_attempt);
} uring_attempts __weak SEC(".maps");

/* Where a field's address is used after a check for NULL, barrier_var() keeps clang from adding its offset before. */
static __always_inline struct sock_state *state_of(const struct sock *sk)
{
	__u64 key = (__u64)sk;

	return bpf_map_lookup_elem(&socks, &key);
}

/* An inbound connection in the queue of its listener. */
static __always_inline bool is_waiting(const struct sock_state *state)
{
	return state->conn.direction == DIRECTION_IN && !state->conn.subflow_of &&
	       !(state->phase & (PHASE_ACCEPTED | PHASE_UNKNOWN));
}

static __always_inline void forget(const struct sock *sk)
{
	__u64 key = (__u64)sk;

	bpf_map_delete_elem(&socks, &key);
}

#endif
