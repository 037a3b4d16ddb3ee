// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A process takes an inbound connection. security_sock_graft() runs in accept() after the wait, with the new
 * socket in hand: an entry probe there needs no return probe, so it misses neither the task that blocked before
 * the tracer came nor the hundredth that blocks beside it, and sees io_uring's accepts too.
 */
#include "report.bpf.h"
#include "file.bpf.h"

static __always_inline bool begin_accepted(struct sock_state *fresh, const struct sock *sk, __u8 protocol)
{
	begin(fresh, sk, protocol, DIRECTION_IN);
	/* A fast open is accepted before its handshake is over; all else without an entry is older, or forgotten. */
	if (BPF_CORE_READ(sk, __sk_common.skc_state) != STATE_SYN_RECV)
		fresh->conn.flags |= anything_forgotten() ? CONN_PARTIAL : CONN_PRE_EXISTING;
	return tuple_wanted(&fresh->conn);
}

static __always_inline int on_accept(const struct sock *sk)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct sock_state *state, fresh = {};
	__u8 protocol = protocol_of(sk);

	if (!protocol)
		return 0;
	state = state_of(sk);
	if (!state) {
		if (!begin_accepted(&fresh, sk, protocol))
			return 0;
		take_task(&fresh.conn, task, OWNER_ACCEPT);
		if (!owner_wanted(&fresh.conn, task))
			return 0;
		fresh.phase = PHASE_ACCEPTED | PHASE_MATCHED;
		report_accept(&fresh);
		if (BPF_CORE_READ(sk, __sk_common.skc_state) != STATE_CLOSE)
			remember(sk, &fresh);
		return 0;
	}
	if (state->phase & PHASE_ACCEPTED || state->conn.direction != DIRECTION_IN)
		return 0;
	barrier_var(state);
	take_task(&state->conn, task, OWNER_ACCEPT);
	if (!owner_wanted(&state->conn, task)) {
		forget(sk);
		return 0;
	}
	if (protocol == PROTO_MPTCP)
		take_tuple(&state->conn, sk);
	if (!matched(sk, state))
		return 0;
	state->phase |= PHASE_ACCEPTED;
	report_accept(state);
	if (state->phase & PHASE_CLOSED)
		forget(sk);
	return 0;
}

SEC("fentry/security_sock_graft")
int BPF_PROG(graft_fentry, struct sock *sk)
{
	return on_accept(sk);
}

SEC("kprobe/security_sock_graft")
int BPF_KPROBE(graft_kprobe, struct sock *sk)
{
	return on_accept(sk);
}

/* Linux 92ef0fd55ac8 (v6.10) folded three arguments into one; the result is the same, and only that is read. */
SEC("kretprobe/inet_csk_accept")
int BPF_KRETPROBE(accept_kretprobe, struct sock *sk)
{
	return sk ? on_accept(sk) : 0;
}

static __always_inline int on_accepted_fd(long fd)
{
	const struct sock *sk = fd < 0 ? NULL : sock_of_fd(fd);

	return sk ? on_accept(sk) : 0;
}

SEC("tracepoint/syscalls/sys_exit_accept")
int accept_syscall(struct trace_event_raw_sys_exit *context)
{
	return on_accepted_fd(context->ret);
}

SEC("tracepoint/syscalls/sys_exit_accept4")
int accept4_syscall(struct trace_event_raw_sys_exit *context)
{
	return on_accepted_fd(context->ret);
}

/*
 * A completion does not say what it completes, only a number: it is an accept if that number is the descriptor of
 * an inbound connection that nobody has taken yet. Three shapes of the tracepoint; the verifier takes one of them.
 */
static __always_inline int on_completion(long result)
{
	const struct sock *sk = result < 0 ? NULL : sock_of_fd(result);
	struct sock_state *state = sk ? state_of(sk) : NULL;

	if (!state || state->phase & PHASE_ACCEPTED || state->conn.direction != DIRECTION_IN)
		return 0;
	return on_accept(sk);
}

/* Since 072d37b52ef9 (v6.15): the completion entry itself. */
SEC("tp_btf/io_uring_complete")
int BPF_PROG(uring_entry, void *ring_context, void *request, struct io_uring_cqe *entry)
{
	return on_completion(entry->res);
}

/* Since c4bb964fa092 (v5.15): context, request, user data, result. */
SEC("tp_btf/io_uring_complete")
int BPF_PROG(uring_result, void *ring_context, void *request, __u64 user_data, int result)
{
	return on_completion(result);
}

/* Before: context, user data, result. */
SEC("tp_btf/io_uring_complete")
int BPF_PROG(uring_result_early, void *ring_context, __u64 user_data, long result)
{
	return on_completion(result);
}

char LICENSE[] SEC("license") __weak = "Dual MIT/GPL";
