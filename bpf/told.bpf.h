/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What a process says of a datagram's other end, or is told of it, before or after the datagram passes. */
#ifndef PYTRACECON_TOLD_BPF_H
#define PYTRACECON_TOLD_BPF_H

#include "datagram.bpf.h"
#include "packet.bpf.h"

/* What the task has said of this datagram's other end, or was told. It is good for one. */
static __always_inline bool take_told(struct datagram *datagram, const struct sock *sk)
{
	__u64 task = (__u64)current_task();
	struct told_address *told = bpf_map_lookup_elem(&told_addresses, &task);

	if (!told || told->sk != (__u64)sk || told->sent != datagram->sent)
		return false;
	told->sk = 0;
	/* To no address in particular: the kernel has chosen one of this host, and the packet has it. */
	if (told->sent && is_any(told->addr))
		return true;
	__builtin_memcpy(datagram->key.remote, told->addr, sizeof(told->addr));
	datagram->key.remote_port = told->port;
	return true;
}

static __always_inline void note_address(struct bpf_sock_addr *context, const __u32 *addr, bool v4, bool sent)
{
	__u64 task = (__u64)current_task();
	struct bpf_sock *sk = context->sk;
	struct told_address fresh = {}, *known;

	if (!sk || (!sent && sk->dst_port)) /* one that is connected receives from nobody else */
		return;
	fresh.sk = (__u64)address_of(sk);
	fresh.port = bpf_ntohs(context->user_port);
	fresh.sent = sent;
	if (v4)
		put_v4(fresh.addr, addr[0]);
	else
		__builtin_memcpy(fresh.addr, addr, sizeof(fresh.addr));
	known = bpf_map_lookup_elem(&told_addresses, &task);
	if (known)
		*known = fresh;
	else
		bpf_map_update_elem(&told_addresses, &task, &fresh, BPF_ANY);
}

#endif
