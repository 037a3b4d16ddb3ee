// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A process takes an inbound connection. security_sock_graft() runs in accept() after the wait, with the new
 * socket in hand: an entry probe there needs no return probe, so it misses neither the task that blocked before
 * the tracer came nor the hundredth that blocks beside it, and sees io_uring's accepts too.
 */
#define CURRENT_TASK
#include "accept.bpf.h"
#include "file.bpf.h"

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

/* Both system calls have the same result. */
SEC("tracepoint/syscalls/sys_exit_accept,sys_exit_accept4")
int accept_syscall(struct trace_event_raw_sys_exit *context)
{
	const struct sock *sk = context->ret < 0 ? NULL : sock_of_fd(context->ret);

	return sk ? on_accept(sk) : 0;
}
