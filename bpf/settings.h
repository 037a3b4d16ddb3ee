/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What user space says before the programs are loaded: constants to the verifier, so what is off costs nothing.
 * pytracecon/settings.py writes it; tests/unit/test_wire.py holds both against each other.
 */
#ifndef PYTRACECON_SETTINGS_H
#define PYTRACECON_SETTINGS_H

/* Which sets of struct filter_key hold anything. A bit off means: no such filter. */
enum filter_bits {
	BY_PID = 1,
	BY_UID = 2,
	BY_COMM = 4,
	BY_NETNS = 8,
	BY_CGROUP = 16,
	BY_REMOTE_PORT = 32,
	BY_LOCAL_PORT = 64,
	BY_NOT_REMOTE_PORT = 128,
	BY_REMOTE = 256,
	BY_LOCAL = 512,
	BY_NOT_REMOTE = 1024,
	BY_CHILDREN = 2048,
	BY_CGROUPMAP = 4096, /* these two are maps that somebody else pinned, and may change at any time */
	BY_MNTNSMAP = 8192,
};

/* What reports the moment of the first SYN: a hook of its own, or whoever sees it as a packet. */
enum syn_hook { SYN_UNSEEN = 0, SYN_CONNECT = 1, SYN_PACKET = 2 };

/* What reports the errno of an attempt that ends inside connect(). */
enum attempt_hook { ATTEMPT_UNSEEN = 0, ATTEMPT_FUNCTION = 1, ATTEMPT_SYSCALL = 2 };

struct settings {
	__u64 min_latency; /* nanoseconds; 0: any */
	__u32 filters;     /* enum filter_bits */
	__u32 kinds;       /* bit n: records of kind n are wanted */
	__u32 wake_bytes;  /* unread bytes in the ring that wake a napping reader */
	__u32 reserved;
	__u8 family;       /* 4, 6, or 0 for both */
	__u8 direction;    /* enum direction, or 0 for both */
	__u8 syn_hook;     /* enum syn_hook */
	__u8 attempt_hook; /* enum attempt_hook */
	__u8 with_error;   /* tcp_retransmit_skb has an error: see retransmit_failed() */
	__u8 padding[3];
};

/* A member of a filter set: which set, then the value, zero-padded (pid, uid, netns, cgroup: little or big as the host). */
struct filter_key {
	__u32 set; /* one of enum filter_bits */
	__u32 reserved;
	__u8 value[16];
};

/* An address prefix, IPv4 as ::ffff:0:0/96. One trie for each of BY_REMOTE, BY_LOCAL, BY_NOT_REMOTE. */
struct prefix_key {
	__u32 bits;
	__u8 addr[16];
};

/* Three bitmaps of 65,536 ports, in the order BY_REMOTE_PORT, BY_LOCAL_PORT, BY_NOT_REMOTE_PORT. */
struct port_set {
	__u64 words[1024];
};

/* What the reader does, said by itself; the program that wakes it sets it back to READER_AWAKE. */
enum resting { READER_AWAKE = 0, READER_NAPS = 1, READER_ASLEEP = 2 };

/* One page that both sides see. */
struct shared {
	__u32 resting; /* enum resting */
	__u32 forgot;  /* some connection did not fit into the map: "unknown" no longer means "older" */
	/* Of UDP conversations, for who sweeps their table: */
	__u64 idle;          /* written by user space: nanoseconds without a datagram that end one */
	__u32 stopping;      /* the same: all of them end */
	__u32 sweep;         /* some ended, or the table is nearly full: it is time */
	__u32 conversations; /* how many there are, nearly */
	__u32 left;          /* some that ended are still there, as the ring has no room */
};

#endif
