// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * What is open right now, in every network namespace. The first iterator goes through the sockets that processes hold,
 * the second through the connections in the table that it did not come by: in a backlog, closed by their process and
 * not yet over, paths of MPTCP connections, or held by somebody else than their owner. The third goes through the UDP
 * conversations of sockets that have several, if they are counted.
 */
#include "datagram.bpf.h"
#include "found.bpf.h"
#include "file.bpf.h"
#include "unseen.bpf.h"

/* One is enough: a tracer takes one snapshot at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

struct scratch {
	__u64 pass; /* the first iterator's session: what it listed has this number */
	__u64 id;   /* of what has none of its own: the inode's number is its file's for life */
	struct row row;
};

static __always_inline struct scratch *own_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline void count_tcp(struct row *row, const struct sock *sk, int tcp_state)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	__u32 unread = 0;

	tcp_totals(&row->totals, sk, tcp_state, row->conn.direction, false);
	if (tcp_state != STATE_SYN_SENT)
		unread = read_unread(tp);
	/* The peer's FIN is one byte until the process has read up to it. */
	if (unread && BPF_CORE_READ(sk, __sk_common.skc_flags) & SOCK_FLAG_DONE)
		unread--;
	row->tx_queue = row->totals.tx_bytes - row->totals.tx_acked;
	row->rx_queue = unread;
	row->known |= ROW_TOTALS | ROW_QUEUES;
}

static __always_inline void count_connection(struct row *row, const struct sock *sk, const struct sock_state *state,
					     int tcp_state)
{
	row->totals.state = tcp_state;
	if (row->conn.protocol == PROTO_TCP) {
		count_tcp(row, sk, tcp_state);
	} else if (state && state->tx_base) {
		mptcp_totals(&row->totals, sk, tcp_state, state);
		row->known |= ROW_TOTALS;
	}
	if (state) {
		row->started = state->started;
		row->established = state->established;
	}
}

/* What waits for accept() in an MPTCP listener waits in its first path. */
static __always_inline void count_backlog(struct row *row, const struct sock *sk)
{
	if (row->conn.protocol == PROTO_MPTCP && bpf_core_type_exists(struct mptcp_sock))
		sk = BPF_CORE_READ(mptcp_sk(sk), first);
	row->totals.state = STATE_LISTEN;
	if (!sk)
		return;
	row->backlog = BPF_CORE_READ(sk, sk_ack_backlog);
	row->backlog_limit = BPF_CORE_READ(sk, sk_max_ack_backlog);
	row->known |= ROW_BACKLOG;
}

/* Memory of the datagrams that wait, as ss has it: the kernel keeps no count of their bytes. */
static __always_inline void count_udp(struct row *row, const struct sock *sk, int state)
{
	int received = BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter);
	int given_back = 0;

	if (bpf_core_field_exists(udp_sk(sk)->forward_deficit))
		given_back = BPF_CORE_READ(udp_sk(sk), forward_deficit);
	row->rx_queue = received > given_back ? received - given_back : 0;
	row->tx_queue = BPF_CORE_READ(sk, sk_wmem_alloc.refs.counter) - 1;
	row->totals.state = state == STATE_ESTABLISHED ? state : 0;
	row->known |= ROW_QUEUES;
}

static __always_inline bool write_row(struct seq_file *seq, struct row *row)
{
	row->time = bpf_ktime_get_ns();
	return !bpf_seq_write(seq, row, sizeof(*row));
}

/* Of several that share an address, only one process's are that process's for certain. */
static __always_inline bool take_listening_owner(struct conn *conn, struct task_struct *task)
{
	struct listener_key key = {};
	struct listening *known;

	listener_key_of(&key, conn);
	known = bpf_map_lookup_elem(&listeners, &key);
	if (!known || known->ambiguous || !known->wanted || known->conn.pid != (__u32)BPF_CORE_READ(task, tgid))
		return take_owner(conn, task, OWNER_EXISTING);
	copy_owner(conn, &known->conn, OWNER_LISTEN);
	return true;
}

static __always_inline bool describe_listener(struct row *row, const struct sock *sk, struct task_struct *task,
					      __u8 protocol)
{
	describe(&row->conn, sk, protocol, DIRECTION_IN);
	if (settings.min_latency || !tuple_wanted(&row->conn) || !take_listening_owner(&row->conn, task))
		return false;
	count_backlog(row, sk);
	return true;
}

/* Who binds a port waits for others; who has the kernel choose one asks them. */
static __always_inline __u8 udp_direction(const struct sock *sk, int state)
{
	bool bound = BPF_CORE_READ_BITFIELD_PROBED(sk, sk_userlocks) & BOUND_TO_PORT;

	if (state != STATE_ESTABLISHED)
		return bound ? DIRECTION_IN : DIRECTION_OUT;
	return bound ? DIRECTION_UNKNOWN : DIRECTION_OUT;
}

static __always_inline void take_conversation(struct row *row, struct conversation *known, __u64 pass)
{
	row->conn = known->conn;
	row->started = known->first;
	row->totals.tx_bytes = known->tx_bytes;
	row->totals.rx_bytes = known->rx_bytes;
	row->tx_packets = known->tx_packets;
	row->rx_packets = known->rx_packets;
	row->app = known->app;
	row->known |= ROW_TOTALS | ROW_PACKETS;
	known->listed = pass;
}

/* A connected socket's conversation is its row. The others' have rows of their own, beside the socket's. */
static __always_inline struct conversation *own_conversation(const struct sock *sk, struct task_struct *task, __u32 fd,
							     int state)
{
	__u64 key = (__u64)sk;
	struct datagram_socket *socket;
	struct conversation_key first;
	struct conversation *known;

	if (!wanted(KIND_FLOW))
		return NULL;
	socket = bpf_map_lookup_elem(&datagram_sockets, &key);
	if (!socket)
		return NULL;
	socket->holder = BPF_CORE_READ(task, tgid);
	socket->fd = fd;
	if (state != STATE_ESTABLISHED || !socket->any || socket->several)
		return NULL;
	first = socket->first;
	known = bpf_map_lookup_elem(&conversations, &first);
	if (!known || !known->first || known->ending || known->conn.pid != socket->holder)
		return NULL;
	return known;
}

static __always_inline bool list_conversation(struct scratch *own, const struct sock *sk, struct task_struct *task,
					      int state)
{
	struct conversation *known = own_conversation(sk, task, own->row.fd, state);

	if (!known)
		return false;
	if (!known->wanted || known->listed == own->pass)
		return true;
	count_udp(&own->row, sk, state);
	take_conversation(&own->row, known, own->pass);
	own->row.known |= ROW_HELD;
	return true;
}

static __always_inline bool describe_udp(struct row *row, const struct sock *sk, struct task_struct *task, int state)
{
	describe(&row->conn, sk, PROTO_UDP, udp_direction(sk, state));
	if (settings.min_latency || !tuple_wanted(&row->conn) || !take_owner(&row->conn, task, OWNER_EXISTING))
		return false;
	count_udp(row, sk, state);
	return true;
}

/* Adds it to the table, so that it is the same one when it closes and in the next snapshot. */
static __always_inline bool adopt(struct conn *conn, const struct sock *sk, struct task_struct *task, __u8 protocol,
				  int tcp_state)
{
	struct sock_state fresh = {};
	__u64 key = (__u64)sk;

	if (!begin_found(&fresh, sk, task, protocol, tcp_state,
			 anything_forgotten() ? CONN_PARTIAL : CONN_PRE_EXISTING))
		return false;
	*conn = fresh.conn;
	bpf_map_update_elem(&socks, &key, &fresh, BPF_NOEXIST);
	forget_if_closed(sk);
	return true;
}

static __always_inline void list_connection(struct seq_file *seq, struct scratch *own, const struct sock *sk,
					    struct task_struct *task, __u8 protocol, int tcp_state)
{
	struct sock_state *state = state_of(sk);
	struct row *row = &own->row;

	if (!state) {
		if (!adopt(&row->conn, sk, task, protocol, tcp_state))
			return;
		state = state_of(sk);
		if (!state)
			row->conn.id = own->id; /* the table is full */
	}
	if (state) {
		barrier_var(state);
		if (state->listed == own->pass || !still_wanted(state))
			return;
		row->conn = state->conn;
		if (!row->conn.pid && !take_owner(&row->conn, task, OWNER_EXISTING))
			return;
	}
	/* Somebody else may hold it too, or alone: then its owner's number for it is found later, or not at all. */
	if (row->conn.pid != (__u32)BPF_CORE_READ(task, tgid))
		return;
	row->known |= ROW_HELD;
	count_connection(row, sk, state, tcp_state);
	if (write_row(seq, row) && state) {
		barrier_var(state);
		state->listed = own->pass;
	}
}

SEC("iter/task_file")
int snapshot_files(struct bpf_iter__task_file *context)
{
	struct seq_file *seq = context->meta->seq;
	struct task_struct *task = context->task;
	struct file *file = context->file;
	struct scratch *own = own_scratch();
	const struct sock *sk;
	struct row *row;
	__u8 protocol;
	int state;

	if (!own)
		return 0;
	own->pass = context->meta->session_id;
	if (!task || !file)
		return 0;
	sk = sock_of_file(file);
	if (!sk)
		return 0;
	protocol = transport_of(sk);
	if (!protocol)
		return 0;
	row = &own->row;
	barrier_var(row);
	__builtin_memset(row, 0, sizeof(*row));
	row->fd = context->fd;
	own->id = ID_OF_INODE | BPF_CORE_READ(file, f_inode, i_ino);
	state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (protocol == PROTO_UDP) {
		if (list_conversation(own, sk, task, state)) {
			if (row->known)
				write_row(seq, row);
			return 0;
		}
		if (!BPF_CORE_READ(inet_sk(sk), inet_sport) || !describe_udp(row, sk, task, state))
			return 0;
	} else if (state == STATE_LISTEN) {
		if (!describe_listener(row, sk, task, protocol))
			return 0;
	} else {
		if (state == STATE_CLOSE || state == STATE_SYN_RECV)
			return 0;
		list_connection(seq, own, sk, task, protocol, state);
		return 0;
	}
	row->conn.id = own->id;
	row->known |= ROW_HELD;
	write_row(seq, row);
	return 0;
}

/* Its memory may serve another socket by now. */
static __always_inline bool still_the_same(const struct sock *sk, const struct sock_state *state, int tcp_state)
{
	if (tcp_state == STATE_CLOSE || tcp_state == STATE_LISTEN || tcp_state == STATE_TIME_WAIT ||
	    tcp_state == STATE_NEW_SYN_RECV)
		return false;
	if (protocol_of(sk) != state->conn.protocol || netns_of(sk) != state->conn.netns)
		return false;
	if (state->conn.local_port && state->conn.local_port != bpf_ntohs(BPF_CORE_READ(inet_sk(sk), inet_sport)))
		return false;
	return !state->conn.remote_port ||
	       state->conn.remote_port == bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
}

SEC("iter/bpf_map_elem")
int snapshot_socks(struct bpf_iter__bpf_map_elem *context)
{
	struct sock_state *state = context->value;
	__u64 *key = context->key;
	struct scratch *own;
	const struct sock *sk;
	struct sock *parent;
	struct row *row;
	int tcp_state;

	if (!key || !state)
		return 0;
	own = own_scratch();
	if (!own || state->listed == own->pass || state->phase & PHASE_CLOSED)
		return 0;
	sk = (const struct sock *)*key;
	tcp_state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (!still_the_same(sk, state, tcp_state) || !still_wanted(state))
		return 0;
	row = &own->row;
	barrier_var(row);
	__builtin_memset(row, 0, sizeof(*row));
	row->conn = state->conn;
	parent = row->conn.subflow_of ? subflow_parent(sk) : NULL;
	if (parent) {
		struct sock_state *whole = state_of(parent);

		if (whole)
			copy_owner(&row->conn, &whole->conn, whole->conn.owner);
	}
	count_connection(row, sk, state, tcp_state);
	write_row(context->meta->seq, row);
	return 0;
}

SEC("iter/bpf_map_elem")
int snapshot_conversations(struct bpf_iter__bpf_map_elem *context)
{
	struct conversation *known = context->value;
	struct scratch *own = own_scratch();
	struct datagram_socket *socket;
	struct row *row;
	__u64 sk;

	if (!context->key || !known || !own)
		return 0;
	if (!known->first || known->ending || !known->wanted || known->listed == own->pass)
		return 0;
	row = &own->row;
	barrier_var(row);
	__builtin_memset(row, 0, sizeof(*row));
	take_conversation(row, known, own->pass);
	sk = known->sk;
	socket = bpf_map_lookup_elem(&datagram_sockets, &sk);
	if (socket && socket->holder == row->conn.pid) {
		row->fd = socket->fd;
		row->known |= ROW_HELD;
	}
	write_row(context->meta->seq, row);
	return 0;
}

/*
 * Run before a tracer detaches, where the kernel has passed by programs: entries of sockets that are over. A state is
 * written after its programs ran, so such an entry stays; but connect() makes one for a socket that is still closed.
 */
SEC("iter/bpf_map_elem")
int audit(struct bpf_iter__bpf_map_elem *context)
{
	struct sock_state *state = context->value;
	__u64 *key = context->key;
	const struct sock *sk;
	__u64 entry;

	if (!key || !state || !end_is_missing(state))
		return 0;
	entry = *key;
	sk = (const struct sock *)entry;
	if (still_the_same(sk, state, BPF_CORE_READ(sk, __sk_common.skc_state)))
		return 0;
	if (state->phase & PHASE_ATTEMPT && BPF_CORE_READ(sk, sk_lock.owned))
		return 0;
	count_unseen();
	bpf_map_delete_elem(&socks, &entry);
	return 0;
}
