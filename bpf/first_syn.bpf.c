// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The first SYN, where the kernel's BTF vouches for the socket. The cgroup's hook runs nine times a connection. */
#define VOUCHED_SOCK
#include "first_syn.bpf.h"

SEC("fentry/tcp_connect")
int BPF_PROG(first_syn_fentry, struct sock *sk)
{
	return on_first_syn(sk);
}

/* Finds that it was told, unless the kernel skipped the other: programs of functions may be preempted wherever tasks may. */
SEC("fentry/tcp_connect")
int BPF_PROG(first_syn_again_fentry, struct sock *sk)
{
	return on_first_syn(sk);
}

SEC("sockops")
int first_syn_sockops(struct bpf_sock_ops *context)
{
	struct bpf_sock *sk;
	struct tcp_sock *tp;

	if (context->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return 1;
	sk = context->sk;
	if (!sk)
		return 1;
	tp = (struct tcp_sock *)bpf_skc_to_tcp_sock(sk);
	if (tp)
		on_first_syn((struct sock *)tp);
	return 1;
}
