/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The wire contract: what the kernel side writes into the ring, and all of it.
 *
 * A record is a struct header, then for an event a struct conn, and what its kind adds. The kinds from KIND_LOOKUP
 * on are no events yet: user space finds names in them, and what owners are. Ports are in host order, addresses are sixteen bytes in
 * network order (IPv4 as ::ffff:a.b.c.d), times are CLOCK_MONOTONIC nanoseconds. Zero, the
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
	KIND_STATE = 7,
	KIND_RETRANSMIT = 8,
	KIND_RESET = 9,
	KIND_FLOW = 10,
	KIND_LOOKUP = 11,      /* a call to a libc's resolver returned */
	KIND_MESSAGE = 12,     /* a DNS message, or a part of one */
	KIND_HELLO = 13,       /* the first bytes of a connection that look like TLS, or QUIC */
	KIND_PROGRAM = 14,     /* a program started that may use another libc */
	KIND_IMAGE = 15,       /* a program started: its path and arguments */
	KIND_PROCESS = 16,     /* a process that other records refer to */
	KIND_GROUP = 17,       /* a cgroup was made */
	KIND_TRANSLATION = 18, /* who is asked for and who answers are not the same */
	KIND_BEGINNING = 19,   /* a UDP conversation's first datagram: the name that it has by then is its name */
};

enum protocol { PROTO_TCP = 1, PROTO_MPTCP = 2, PROTO_UDP = 3 };

enum direction { DIRECTION_UNKNOWN = 0, DIRECTION_OUT = 1, DIRECTION_IN = 2 };

enum owner_source {
	OWNER_UNKNOWN = 0,
	OWNER_CONNECT = 1,
	OWNER_ACCEPT = 2,
	OWNER_LISTEN = 3,
	OWNER_EXISTING = 4,
	OWNER_SEND = 5,
	OWNER_RECEIVE = 6,
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
	/* Of UDP conversations: */
	ENDED_IDLE = 6,
	ENDED_CLOSED = 7,
	ENDED_OWNER_GONE = 8,
	ENDED_STOPPED = 9, /* tracing has */
};

enum app { APP_UNKNOWN = 0, APP_QUIC = 1 };

struct header {
	__u64 time;
	__u32 lost; /* events that this CPU could not send so far; wraps */
	__u16 cpu;
	__u8 kind;
	__u8 words; /* size of the record in units of eight bytes */
};

struct conn {
	__u64 id;         /* never reused in a run */
	__u64 subflow_of; /* id of the MPTCP connection that this is a path of */
	__u64 cgroup;
	__u64 born;    /* when the process started, by the clock that runs in suspend: the number alone is used again */
	__u64 process; /* a process_event's id; 0: none is told */
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
	__u64 handshake; /* what it took before that */
	struct totals totals;
};

struct existing_event {
	struct header header;
	struct conn conn;
	struct totals totals;
};

enum row_known {
	ROW_TOTALS = 1,  /* what was sent and received */
	ROW_QUEUES = 2,  /* what waits to be acknowledged or read */
	ROW_BACKLOG = 4, /* of a listener */
	ROW_HELD = 8,    /* the owner's number for the socket */
	ROW_PACKETS = 16,
};

/* Of the ids of sockets that no event tells of: such a one is made of the socket's inode. */
#define ID_OF_INODE (1ULL << 63)

/* A socket as it stands. Not in the ring: an iterator writes these one after the other. */
struct row {
	__u64 time;
	__u64 started; /* first SYN */
	__u64 established;
	__u64 tx_packets; /* UDP */
	__u64 rx_packets;
	struct conn conn;
	struct totals totals;
	__u32 tx_queue;
	__u32 rx_queue;
	__u32 backlog;
	__u32 backlog_limit;
	__u32 fd;
	__u8 app;
	__u8 known; /* enum row_known */
	__u8 reserved[2];
};

/* TCP went from one state to another; the first time that a connection's ports are not known yet, it is told later. */
struct state_event {
	struct header header;
	struct conn conn;
	__u64 in_old; /* 0: nobody knows */
	__u16 error;  /* what the socket reported then */
	__u8 from;    /* the kernel's TCP_… */
	__u8 to;
	__u32 reserved;
};

enum segment { SEGMENT_DATA = 1, SEGMENT_SYN = 2, SEGMENT_SYNACK = 3, SEGMENT_FIN = 4 };

struct retransmit_event {
	struct header header;
	struct conn conn;
	__u32 segments; /* as the kernel counts them: one packet to be split later is several */
	__u8 segment;   /* enum segment */
	__u8 state;
	__u8 reserved[2];
};

struct reset_event {
	struct header header;
	struct conn conn;
	__u8 sent; /* else received */
	__u8 state;
	__u8 reserved[6];
};

/* A UDP conversation is over: what one process sent over one socket to one address, and received from it. */
struct flow_event {
	struct header header;
	struct conn conn;
	__u64 duration; /* from its first datagram to its last */
	__u64 idle;     /* since that */
	__u64 tx_bytes;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 rx_packets;
	__u8 ended;
	__u8 app; /* enum app */
	__u8 reserved[6];
};

struct beginning_event {
	struct header header;
	struct conn conn;
};

/* Who asked for a name. */
struct asker {
	__u64 cgroup;
	__u64 born;
	__u64 process;
	__u32 netns;
	__u32 pid;
	__u32 tid;
	__u32 uid;
	char comm[16];
	char thread[16];
};

enum name_flags {
	NAME_WANTED = 1,      /* the filters let the asker through */
	NAME_MORE = 2,        /* another record goes on with the addresses */
	NAME_CUT = 4,         /* the name is longer */
	NAME_UNREAD = 8,      /* no name was given, or none that can be read */
	NAME_LEFT_OUT = 16,   /* there are more addresses than are told */
	NAME_SENT = 32,       /* message: from the one who asks */
	NAME_WITHIN = 64,     /* message: sent inside a call of a libc's resolver */
	NAME_BY_SERVER = 128, /* message: the asker answers others on the DNS port */
};

enum resolver { RESOLVER_GETADDRINFO = 1, RESOLVER_GETHOSTBYNAME = 2 };

/* Which function a uprobe is on: its cookie. */
enum resolver_function {
	FUNCTION_GETADDRINFO = 1,
	FUNCTION_GETHOSTBYNAME = 2, /* and gethostbyname2 */
	FUNCTION_GETHOSTBYNAME_R = 3,
	FUNCTION_GETHOSTBYNAME2_R = 4,
};

#define H_ERRNO_UNKNOWN 0x7fff

#define NAME_SIZE 256
#define ADDRESSES 16

struct lookup_event {
	struct header header;
	struct asker asker;
	__u64 call; /* the same in all records of one call */
	__u64 latency;
	__s32 code; /* EAI_…, or h_errno; 0: success */
	__u8 resolver;
	__u8 count;
	__u8 flags; /* enum name_flags */
	__u8 reserved;
	char name[NAME_SIZE];
	__u8 addresses[ADDRESSES][16];
};

struct relative {
	__u64 born;
	__u32 pid;
	__u32 reserved;
};

#define RELATIVES 4

/* Then `length` bytes of payload. */
struct message_event {
	struct header header;
	struct asker asker;                   /* of what is sent */
	struct relative ancestors[RELATIVES]; /* the asker's, nearest first, of its cgroup */
	__u64 packet;                         /* the same in all parts of one */
	__u8 server[16];
	__u32 netns;
	__u32 seq;  /* TCP: sequence number of the payload's first byte */
	__u32 size; /* of the payload in all */
	__u32 at;   /* where this part begins in it */
	__u16 server_port;
	__u16 local_port;
	__u16 length;
	__u8 transport; /* IPPROTO_UDP or IPPROTO_TCP */
	__u8 flags;     /* enum name_flags */
};

/* Then `length` bytes of payload. */
struct hello_event {
	struct header header;
	struct conn conn;
	__u32 at; /* in the stream; of UDP: how many datagrams were sent before */
	__u32 length;
};

struct program_event {
	struct header header;
	__u64 inode;
	__u32 device;
	__u32 mount_namespace;
	__u32 pid;
	__u32 reserved;
};

/*
 * Then the path of the program's file: names from the last to the first, each with its NUL, `path` bytes in all (0: it is
 * not known), and `args` bytes of its arguments, each with its NUL.
 */
struct image_event {
	struct header header;
	__u64 id;
	__u32 pid;
	__u16 path;
	__u16 args;
	__u8 args_cut;
	__u8 reserved[7];
};

#define PARENTS 8

/* A process with the program that it runs. The origin is who started that; others have it by fork(). */
struct process_event {
	struct header header;
	__u64 id;
	__u64 image; /* an image_event's id, unless that is older than the tracer */
	__u64 born;
	__u64 origin_born;
	__u32 pid;
	__u32 origin_pid;
	__u32 parents[PARENTS]; /* nearest first */
};

/* Then `length` bytes of its path. */
struct group_event {
	struct header header;
	__u64 id;
	__u32 length;
	__u32 reserved;
};

enum translation { TRANSLATION_SERVICE = 1, TRANSLATION_NAT = 2 };

struct translation_event {
	struct header header;
	__u8 client[16];
	__u8 asked[16]; /* what the client connects to: a virtual address */
	__u8 real[16];
	__u32 netns;
	__u16 client_port;
	__u16 asked_port;
	__u16 real_port;
	__u8 kind;      /* enum translation */
	__u8 transport; /* IPPROTO_TCP or IPPROTO_UDP */
	__u32 reserved;
};

/* One slot a CPU, mapped by user space and never reset. Of events: wanted = delivered + lost_ring. */
struct counters {
	__u64 wanted;       /* not counted: what serves names, as user space knows what events it makes of that */
	__u64 lost_ring;    /* the ring was full */
	__u64 lost_ring_at; /* when that happened last */
	__u64 lost_map;     /* connections that a full map could not remember */
	__u64 lost_map_at;
	__u64 lost_names; /* records that serve names and found the ring full */
	__u64 lost_names_at;
	__u64 unseen; /* connections whose end no tracepoint told: their memory serves another one */
	__u64 unseen_at;
	__u64 ids;
	__u64 stood_in; /* changes of state that the first of two programs was skipped for, and the second was not */
};

#endif
