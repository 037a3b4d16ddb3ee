// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The life of a TCP socket, from its state changes. Most of them happen in softirq: the owner is never taken from
 * whoever runs, save where the state can change in a system call only (CLOSE to SYN_SENT, CLOSE to LISTEN).
 */
#include "report.bpf.h"
#include "totals.bpf.h"
#include "unseen.bpf.h"

/* Runs in listen(): whoever runs is who listens. */
static __always_inline void on_listen(const struct sock *sk)
{
	struct listener_key key = {};
	struct listening fresh = {}, *known;

	fresh.conn.netns = netns_of(sk);
	take_tuple(&fresh.conn, sk);
	fresh.sockets = 1;
	fresh.wanted = take_owner(&fresh.conn, (struct task_struct *)bpf_get_current_task(), OWNER_LISTEN);
	listener_key_of(&key, &fresh.conn);
	known = bpf_map_lookup_elem(&listeners, &key);
	if (!known) {
		if (bpf_map_update_elem(&listeners, &key, &fresh, BPF_ANY))
			count_forgotten();
		return;
	}
	__sync_fetch_and_add(&known->sockets, 1);
	if (known->conn.pid != fresh.conn.pid)
		known->ambiguous = 1;
}

static __always_inline void on_listen_end(const struct sock *sk)
{
	struct listener_key key = {};
	struct listening *known;
	struct conn conn = {};

	conn.netns = netns_of(sk);
	take_tuple(&conn, sk);
	listener_key_of(&key, &conn);
	known = bpf_map_lookup_elem(&listeners, &key);
	if (!known)
		return;
	if (known->sockets > 1)
		__sync_fetch_and_add(&known->sockets, -1);
	else
		bpf_map_delete_elem(&listeners, &key);
}

/* Runs in connect() or in a send with MSG_FASTOPEN, io_uring's too: whoever runs is who asks. */
static __always_inline void on_attempt(const struct sock *sk, struct sock_state *fresh)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	bool tcp = fresh->conn.protocol == PROTO_TCP;

	if (settings.attempt_hook == ATTEMPT_SYSCALL) {
		__u64 key = (__u64)task;
		struct syscall_attempt *call = bpf_map_lookup_elem(&syscall_attempts, &key);

		if (!call) {
			key = (__u64)sk;
			call = bpf_map_lookup_elem(&uring_attempts, &key);
		}
		if (call)
			call->began = 1;
	}
	if (!fresh->conn.subflow_of) {
		if (!take_owner(&fresh->conn, task, OWNER_CONNECT)) {
			forget(sk);
			return;
		}
	}
	fresh->phase = PHASE_ATTEMPT;
	if (settings.attempt_hook && (tcp || settings.attempt_hook == ATTEMPT_SYSCALL))
		fresh->phase |= PHASE_IN_CONNECT;
	if (!settings.syn_hook && tcp) {
		fresh->phase |= PHASE_SYN_LEFT;
		/* A deferred fast open sends its SYN with the first data, which nobody here will see. */
		if (!BPF_CORE_READ_BITFIELD_PROBED(tcp_sk(sk), fastopen_connect))
			fresh->started = bpf_ktime_get_ns();
		if (!matched(sk, fresh))
			return;
		report_connect(fresh);
	}
	remember(sk, fresh);
}

static __always_inline void on_attempt_end(const struct sock *sk, struct sock_state *state)
{
	int error = BPF_CORE_READ(sk, sk_err) ?: (int)state->error;

	if (!error && state->phase & PHASE_IN_CONNECT && state->conn.tid == (__u32)bpf_get_current_pid_tgid()) {
		state->phase |= PHASE_PENDING;
		return;
	}
	/*
	 * A process gives up with the socket in its hands. If none holds it, there was an error, and whoever polled took
	 * it first: before 853c3bd7b791 (v6.11) it was announced before the state changed.
	 */
	if (!error && !BPF_CORE_READ(sk, sk_lock.owned))
		error = ERROR_UNKNOWN;
	/* Where no hook saw the first SYN, the port is read now; the rest the kernel may have cleared already. */
	if (!state->conn.local_port)
		state->conn.local_port = bpf_ntohs(BPF_CORE_READ(inet_sk(sk), inet_sport));
	if (matched(sk, state)) {
		report_failed(state, sk, error);
		forget(sk);
	}
}

static __always_inline void on_outbound(const struct sock *sk, struct sock_state *state)
{
	state->established = bpf_ktime_get_ns();
	state->phase &= ~(PHASE_ATTEMPT | PHASE_IN_CONNECT);
	state->conn.flags &= ~CONN_FASTOPEN;
	if (state->conn.protocol == PROTO_TCP) {
		if (!settings.syn_hook)
			take_tuple(&state->conn, sk);
		/* More than the SYN was acknowledged: its data too. */
		if (BPF_CORE_READ_BITFIELD_PROBED(tcp_sk(sk), syn_data) && BPF_CORE_READ(tcp_sk(sk), bytes_acked) > 1)
			state->conn.flags |= CONN_FASTOPEN;
	}
	if (!matched(sk, state))
		return;
	if (settings.min_latency && (!state->started || state->established - state->started < settings.min_latency)) {
		forget(sk);
		return;
	}
	report_established(state, sk);
}

/*
 * Until a process takes it, a connection is the listener's. It is noted now: a listener that closes leaves its table
 * first, and only then ends what waits in its queue.
 */
static __always_inline void take_listener(struct sock_state *state)
{
	struct listening *listener = listener_of(&state->conn);

	if (!listener && anything_forgotten())
		state->conn.flags |= CONN_PARTIAL;
	if (!listener || listener->ambiguous)
		return;
	copy_owner(&state->conn, &listener->conn, OWNER_LISTEN);
	if (listener->wanted)
		state->phase |= PHASE_LISTENER_WANTED;
}

/* The kernel gives an MPTCP connection its addresses after its state: they come with its first path. */
static __always_inline void complete_whole(const struct sock *sk, const struct conn *path)
{
	struct sock *parent = subflow_parent(sk);
	struct sock_state *whole = parent ? state_of(parent) : NULL;

	if (!whole || whole->conn.remote_port)
		return;
	barrier_var(whole);
	__builtin_memcpy(whole->conn.local_addr, path->local_addr, sizeof(path->local_addr));
	__builtin_memcpy(whole->conn.remote_addr, path->remote_addr, sizeof(path->remote_addr));
	whole->conn.local_port = path->local_port;
	whole->conn.remote_port = path->remote_port;
	whole->conn.flags |= path->flags & CONN_V4_MAPPED;
	take_listener(whole);
}

static __always_inline void on_inbound(const struct sock *sk, struct sock_state *fresh)
{
	fresh->established = bpf_ktime_get_ns();
	if (fresh->conn.protocol == PROTO_TCP) {
		if (!tuple_wanted(&fresh->conn))
			return;
		fresh->phase = PHASE_MATCHED;
		if (fresh->conn.subflow_of)
			complete_whole(sk, &fresh->conn);
		else
			take_listener(fresh);
	}
	remember(sk, fresh);
}

static __always_inline void begin_mptcp_count(const struct sock *sk)
{
	struct sock_state *state = state_of(sk);

	if (!state || !bpf_core_type_exists(struct mptcp_sock))
		return;
	barrier_var(state);
	state->tx_base = BPF_CORE_READ(mptcp_sk(sk), write_seq);
	state->rx_base = BPF_CORE_READ(mptcp_sk(sk), ack_seq);
}

static __always_inline void report_close(struct sock_state *state, const struct sock *sk, int from)
{
	struct close_event *event;

	if (!wanted(KIND_CLOSE))
		return;
	event = reserve(sizeof(*event), KIND_CLOSE, &state->conn);
	if (!event)
		return;
	event->duration = state->established && !(state->conn.flags & CONN_PRE_EXISTING)
				  ? event->header.time - state->established
				  : 0;
	event->handshake = event->duration && state->started ? state->established - state->started : 0;
	__builtin_memset(&event->totals, 0, sizeof(event->totals));
	/* Read again from the record, where the verifier knows nothing of it: it need not follow each state by itself. */
	event->totals.state = from;
	from = *(volatile __u8 *)&event->totals.state;
	if (state->conn.protocol == PROTO_TCP)
		tcp_totals(&event->totals, sk, from, state->conn.direction == DIRECTION_OUT);
	else
		mptcp_totals(&event->totals, sk, from, state);
	from = *(volatile __u8 *)&event->totals.state;
	event->totals.ended = how_ended(sk, from, state, event->totals.tx_acked < event->totals.tx_bytes);
	submit(event);
}

/* A path of an MPTCP connection belongs to whoever has taken that by now. */
static __always_inline void take_whole(struct sock_state *state, const struct sock *sk)
{
	struct sock *parent = subflow_parent(sk);
	struct sock_state *whole = parent ? state_of(parent) : NULL;

	if (whole)
		copy_owner(&state->conn, &whole->conn, whole->conn.owner);
}

static __always_inline void on_close(const struct sock *sk, struct sock_state *state, int from)
{
	bool waiting;

	if (state->phase & PHASE_CLOSED)
		return;
	if (state->conn.subflow_of)
		take_whole(state, sk);
	waiting = state->conn.direction == DIRECTION_IN && !state->conn.subflow_of &&
		  !(state->phase & (PHASE_ACCEPTED | PHASE_UNKNOWN));
	if (on(BY_OWNER) && (waiting ? !(state->phase & PHASE_LISTENER_WANTED) : !state->conn.pid)) {
		forget(sk);
		return;
	}
	if (matched(sk, state))
		report_close(state, sk, from);
	/* It may still be accepted, dead as it is, and is the same connection then. */
	if (waiting && state->conn.protocol == PROTO_TCP)
		state->phase |= PHASE_CLOSED;
	else
		forget(sk);
}

/* Of a change of state that says something of a connection: what it is to a socket that has no entry. */
enum beginning { NOT_BEGINNING, BEGINS_OUTBOUND, BEGINS_INBOUND, UNKNOWN_OUTBOUND, UNKNOWN_CLOSING };

static __always_inline enum beginning beginning_of(const struct sock *sk, int from, int to)
{
	if (to == STATE_SYN_SENT)
		return BEGINS_OUTBOUND;
	if (from == STATE_SYN_SENT && (to == STATE_ESTABLISHED || to == STATE_CLOSE))
		return UNKNOWN_OUTBOUND;
	/* A child has no file before it is accepted; a socket that connects to itself has one. */
	if (to == STATE_ESTABLISHED)
		return BPF_CORE_READ(sk, sk_socket) ? NOT_BEGINNING : BEGINS_INBOUND;
	return to == STATE_CLOSE && from != STATE_SYN_RECV ? UNKNOWN_CLOSING : NOT_BEGINNING;
}

/* Fills a fresh entry; false if nothing is to be said of this connection. */
static __always_inline bool begin_anew(struct sock_state *fresh, const struct sock *sk, __u8 protocol,
				       enum beginning beginning, int from)
{
	__u8 direction = beginning == BEGINS_INBOUND ? DIRECTION_IN : DIRECTION_OUT;

	if (beginning == NOT_BEGINNING)
		return false;
	if (beginning == UNKNOWN_OUTBOUND || beginning == UNKNOWN_CLOSING) {
		/* It may be anybody's: with a filter on owners it is held back. */
		if (on(BY_OWNER) || settings.min_latency)
			return false;
		fresh->conn.flags = anything_forgotten() ? CONN_PARTIAL : CONN_PRE_EXISTING;
		fresh->phase = PHASE_MATCHED | PHASE_UNKNOWN;
		if (beginning == UNKNOWN_CLOSING)
			direction = direction_of(sk, protocol, from);
	}
	begin(fresh, sk, protocol, direction);
	return !(fresh->phase & PHASE_UNKNOWN) || tuple_wanted(&fresh->conn);
}

/* The changes that say something; the others are looked at by nobody. */
static __always_inline bool noteworthy(int to)
{
	return to == STATE_ESTABLISHED || to == STATE_SYN_SENT || to == STATE_FIN_WAIT1 || to == STATE_CLOSE ||
	       to == STATE_CLOSE_WAIT || to == STATE_LISTEN;
}

/*
 * An entry of a connection that must be over, for another one begins in its memory. Only an attempt becomes
 * established with an entry, or a fast open that was accepted before.
 */
static __always_inline bool stale(const struct sock_state *state, int to)
{
	if (to == STATE_SYN_SENT)
		return true;
	return to == STATE_ESTABLISHED && !(state->phase & PHASE_ATTEMPT) &&
	       (state->established || !(state->phase & PHASE_ACCEPTED));
}

static __always_inline bool same_remote(const struct sock_state *state, const struct sock *sk)
{
	return state->conn.remote_port == bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport)) &&
	       !(state->phase & PHASE_CLOSED);
}

/*
 * Both programs may have been called for the same change. Between the two calls no SYN leaves; where no hook sees that,
 * it takes a millisecond to fail and to try again.
 */
static __always_inline bool same_change(const struct sock_state *state, const struct sock *sk, int to)
{
	if (to == STATE_ESTABLISHED)
		return same_remote(state, sk);
	if (!(state->phase & PHASE_ATTEMPT))
		return false;
	if (!state->conn.subflow_of && state->conn.tid != (__u32)bpf_get_current_pid_tgid())
		return false;
	return !state->started || (!settings.syn_hook && bpf_ktime_get_ns() - state->started < 1000000);
}

static __always_inline int on_state(const struct sock *sk, int from, int to)
{
	struct sock_state *state, fresh = {};
	__u8 protocol = protocol_of(sk);

	if (!protocol || from == to)
		return 0;
	if (to == STATE_LISTEN) {
		on_listen(sk);
		return 0;
	}
	if (from == STATE_LISTEN && to == STATE_CLOSE) {
		on_listen_end(sk);
		return 0;
	}
	if (!noteworthy(to))
		return 0;
	state = state_of(sk);
	if (state && stale(state, to)) {
		if (same_change(state, sk, to))
			return 0;
		if (end_is_missing(state))
			count_unseen();
		state = NULL;
	}
	if (to == STATE_FIN_WAIT1 || to == STATE_CLOSE_WAIT) {
		if (state && !(state->phase & (PHASE_LOCAL_FIRST | PHASE_REMOTE_FIRST)))
			state->phase |= to == STATE_FIN_WAIT1 ? PHASE_LOCAL_FIRST : PHASE_REMOTE_FIRST;
		return 0;
	}
	if (!state || to == STATE_SYN_SENT) {
		enum beginning beginning = beginning_of(sk, from, to);

		if (!begin_anew(&fresh, sk, protocol, beginning, from))
			return 0;
		if (beginning == BEGINS_OUTBOUND) {
			on_attempt(sk, &fresh);
			return 0;
		}
		if (beginning == BEGINS_INBOUND) {
			on_inbound(sk, &fresh);
			if (protocol == PROTO_MPTCP)
				begin_mptcp_count(sk);
			return 0;
		}
		if (to == STATE_ESTABLISHED)
			remember(sk, &fresh);
		state = &fresh;
	}
	barrier_var(state);
	if (to == STATE_CLOSE) {
		if (from == STATE_SYN_SENT || state->phase & PHASE_ATTEMPT)
			on_attempt_end(sk, state);
		else if (from == STATE_SYN_RECV && !(state->phase & PHASE_ACCEPTED))
			forget(sk);
		else
			on_close(sk, state, from);
		return 0;
	}
	if (from == STATE_SYN_SENT || state->phase & PHASE_ATTEMPT)
		on_outbound(sk, state);
	else
		/* A fast open was accepted before its handshake was over. */
		state->established = bpf_ktime_get_ns();
	if (protocol == PROTO_MPTCP)
		begin_mptcp_count(sk);
	return 0;
}

/* What never came to an end by its state: a pending attempt whose return nobody saw, an entry made too late. */
static __always_inline int on_destroy(const struct sock *sk)
{
	struct sock_state *state = state_of(sk);

	if (settings.attempt_hook == ATTEMPT_SYSCALL) {
		__u64 key = (__u64)sk;

		bpf_map_delete_elem(&uring_attempts, &key);
	}
	if (!state)
		return 0;
	if (state->phase & PHASE_PENDING && matched(sk, state))
		report_failed(state, sk, ERROR_UNKNOWN);
	else if (end_is_missing(state))
		count_unseen();
	forget(sk);
	return 0;
}

/*
 * Since 05b24ff9b2cf (v6.1) the kernel skips a program on a tracepoint while the same program runs on that CPU: a
 * softirq that interrupts us would go untold, as happens to one in some thousand connections of a busy host. So the
 * program is attached twice, as two that do nothing but call the one that works. The first notes what it was called
 * for; the second works only if it finds no such note, which is when the first was skipped. At most one is running at
 * any moment, and softirqs do not interrupt each other: so the other one is always there to be called.
 */
struct notes {
	__u64 working; /* what the first is working on */
	__u32 depth;
	__u32 reserved;
	__u64 what[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct notes);
} notes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} workers SEC(".maps");

static __always_inline struct notes *own_notes(const struct sock *sk, int to, __u64 *what)
{
	__u32 zero = 0;

	bpf_probe_read_kernel(what, sizeof(*what), &sk);
	*what = *what << 8 | to;
	return bpf_map_lookup_elem(&notes, &zero);
}

static __always_inline void note(const struct sock *sk, int to)
{
	__u64 what;
	struct notes *own = own_notes(sk, to, &what);
	__u32 at;

	if (!own)
		return;
	at = own->depth & 7;
	own->what[at] = what;
	own->depth = at + 1;
	own->working = what;
}

static __always_inline void worked(const struct sock *sk, int to)
{
	__u64 what;
	struct notes *own = own_notes(sk, to, &what);

	if (own && own->working == what)
		own->working = 0;
}

/*
 * While the first works on something else, this cannot have been noted. Otherwise it should have been, and is looked
 * for from the top: notes above it, and any left below, are of those whose second program was skipped.
 */
static __always_inline bool noted(const struct sock *sk, int to)
{
	__u64 what;
	struct notes *own = own_notes(sk, to, &what);
	int at;

	if (!own || own->working)
		return false;
	for (at = 7; at >= 0; at--) {
		if (at < (int)own->depth && own->what[at] == what) {
			own->depth = at;
			return true;
		}
	}
	return false;
}

/*
 * A slot that stays empty. Since a76ab5731e32 (v6.13) a tracing program gets a stack of its own on each CPU, on the
 * ground that it never runs twice there; this one may, and a program with a tail call keeps to the stack of its caller.
 */
#define NO_WORKER 1

#define STATE_PROGRAMS(kind, suffix)                                                                                   \
	SEC(kind "/inet_sock_set_state")                                                                               \
	int BPF_PROG(state_##suffix, const struct sock *sk, const int from, const int to)                              \
	{                                                                                                              \
		if (!noteworthy(to))                                                                                   \
			return 0;                                                                                      \
		note(sk, to);                                                                                          \
		bpf_tail_call(ctx, &workers, 0);                                                                       \
		return 0;                                                                                              \
	}                                                                                                              \
	SEC(kind "/inet_sock_set_state")                                                                               \
	int BPF_PROG(state_skipped_##suffix, const struct sock *sk, const int from, const int to)                      \
	{                                                                                                              \
		if (!noteworthy(to) || noted(sk, to))                                                                  \
			return 0;                                                                                      \
		bpf_tail_call(ctx, &workers, 0);                                                                       \
		return 0;                                                                                              \
	}                                                                                                              \
	SEC(kind "/inet_sock_set_state")                                                                               \
	int BPF_PROG(state_worker_##suffix, const struct sock *sk, const int from, const int to)                       \
	{                                                                                                              \
		on_state(sk, from, to);                                                                                \
		worked(sk, to);                                                                                        \
		bpf_tail_call(ctx, &workers, NO_WORKER);                                                               \
		return 0;                                                                                              \
	}

STATE_PROGRAMS("tp_btf", btf)
STATE_PROGRAMS("raw_tp", raw)

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(destroy_btf, const struct sock *sk)
{
	return on_destroy(sk);
}

SEC("raw_tp/tcp_destroy_sock")
int BPF_PROG(destroy_raw, const struct sock *sk)
{
	return on_destroy(sk);
}
