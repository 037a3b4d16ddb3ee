// SPDX-License-Identifier: GPL-2.0 OR MIT
/* What was open before the tracer came: every socket that a process holds, in every network namespace, once. */
#include "report.bpf.h"
#include "datagram.bpf.h"
#include "found.bpf.h"
#include "listening.bpf.h"
#include "file.bpf.h"

static __always_inline void report_existing(const struct sock_state *state, const struct sock *sk, int tcp_state)
{
	struct existing_event *event;

	if (!wanted(KIND_EXISTING))
		return;
	event = reserve(sizeof(*event), KIND_EXISTING, &state->conn);
	if (!event)
		return;
	__builtin_memset(&event->totals, 0, sizeof(event->totals));
	if (state->conn.protocol == PROTO_TCP)
		tcp_totals(&event->totals, sk, tcp_state, state->conn.direction, false);
	else
		event->totals.state = tcp_state;
	submit(event);
}

static __always_inline void found_connection(const struct sock *sk, struct task_struct *task, __u8 protocol,
					     int tcp_state)
{
	struct sock_state fresh = {};
	__u64 key = (__u64)sk;
	int error;

	if (!begin_found(&fresh, sk, task, protocol, tcp_state, CONN_PRE_EXISTING))
		return;
	/* A hook may have been faster, or another process holds the same socket and was met first. */
	if (state_of(sk))
		return;
	error = put_into(&socks, &key, &fresh, BPF_NOEXIST);
	if (error == -ERROR_E2BIG)
		count_forgotten();
	if (error)
		return;
	report_existing(&fresh, sk, tcp_state);
	forget_if_closed(sk);
}

/* The file is held meanwhile, so the socket cannot be gone before its entry is there. */
static __always_inline void found_datagram_socket(const struct sock *sk)
{
	struct datagram_socket *socket = datagram_socket_of(sk);

	if (socket)
		socket->existing = 1;
}

SEC("iter/task_file")
int existing(struct bpf_iter__task_file *context)
{
	struct task_struct *task = context->task;
	struct file *file = context->file;
	const struct sock *sk;
	__u8 protocol;
	int tcp_state;

	if (!task || !file)
		return 0;
	sk = sock_of_file(file);
	if (!sk)
		return 0;
	protocol = transport_of(sk);
	if (protocol == PROTO_UDP && wanted(KIND_FLOW))
		found_datagram_socket(sk);
	if (!protocol || protocol == PROTO_UDP)
		return 0;
	tcp_state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (tcp_state == STATE_LISTEN)
		found_listener(sk, task);
	else if (tcp_state != STATE_CLOSE && tcp_state != STATE_SYN_RECV)
		found_connection(sk, task, protocol, tcp_state);
	return 0;
}
