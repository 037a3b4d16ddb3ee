/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What user space says before the programs are loaded: constants to the verifier, so what is off costs nothing.
 * pytracecon/settings.py writes it; tests/unit/test_wire.py holds both against each other.
 */
#ifndef PYTRACECON_SETTINGS_H
#define PYTRACECON_SETTINGS_H

/* Which sets of struct filter_key hold anything. A bit off means: no such filter. */
enum filter_bits {
	FILTER_PID = 1,
	FILTER_UID = 2,
	FILTER_COMM = 4,
	FILTER_NETNS = 8,
	FILTER_CGROUP = 16,
	FILTER_REMOTE_PORT = 32,
	FILTER_LOCAL_PORT = 64,
	FILTER_NOT_REMOTE_PORT = 128,
	FILTER_REMOTE = 256,
	FILTER_LOCAL = 512,
	FILTER_NOT_REMOTE = 1024,
	FILTER_CHILDREN = 2048,
};

struct settings {
	__u64 min_latency;	/* nanoseconds; 0: any */
	__u32 filters;		/* enum filter_bits */
	__u32 kinds;		/* bit n: records of kind n are wanted */
	__u32 wake_bytes;	/* unread bytes in the ring that wake a napping reader */
	__u32 own_pid;		/* the tracer itself; 0: report it too */
	__u8 family;		/* 4, 6, or 0 for both */
	__u8 direction;		/* enum direction, or 0 for both */
	__u8 syn_hook;		/* something reports the moment of the first SYN */
	__u8 attempt_hook;	/* something reports attempts that end inside connect() */
};

/* A member of a filter set: which set, then the value, zero-padded (pid, uid, netns, cgroup: little or big as the host). */
struct filter_key {
	__u32 set;		/* one of enum filter_bits */
	__u32 reserved;
	__u8 value[16];
};

/* An address prefix, IPv4 as ::ffff:0:0/96. One trie for each of FILTER_REMOTE, FILTER_LOCAL, FILTER_NOT_REMOTE. */
struct prefix_key {
	__u32 bits;
	__u8 addr[16];
};

/* Three bitmaps of 65,536 ports, in the order FILTER_REMOTE_PORT, FILTER_LOCAL_PORT, FILTER_NOT_REMOTE_PORT. */
struct port_set {
	__u64 words[1024];
};

/* Written by the reader while it runs. */
struct reader {
	__u32 sleeping;		/* the reader is blocked: the next record wakes it */
	__u32 reserved;
};

#endif
