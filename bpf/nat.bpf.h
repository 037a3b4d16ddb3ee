/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Where a SYN really goes, as it leaves: behind all that translates addresses in its own network namespace. */
#ifndef PYTRACECON_NAT_BPF_H
#define PYTRACECON_NAT_BPF_H

#include "packet.bpf.h"

/* Apart from the way of all other packets, which has no need of its stack. */
static __noinline int on_syn(struct __sk_buff *skb)
{
	struct translation_event *event;
	struct layout layout = {};
	struct conn conn = {};
	struct bpf_sock *sk = skb->sk;
	struct sock *address;

	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (!sk || !take_layout(&layout, skb, true, true))
		return 0;
	address = address_of(sk);
	take_tuple(&conn, address);
	if (layout.remote_port == conn.remote_port && same_address(layout.remote, conn.remote_addr))
		return 0;
	event = reserve_record(sizeof(*event), KIND_TRANSLATION);
	if (!event)
		return 0;
	__builtin_memcpy(event->client, conn.local_addr, sizeof(event->client));
	__builtin_memcpy(event->asked, conn.remote_addr, sizeof(event->asked));
	__builtin_memcpy(event->real, layout.remote, sizeof(event->real));
	event->netns = netns_of(address);
	event->client_port = conn.local_port;
	event->asked_port = conn.remote_port;
	event->real_port = layout.remote_port;
	event->kind = TRANSLATION_NAT;
	event->transport = IPPROTO_TCP_NUMBER;
	event->reserved = 0;
	submit(event);
	return 0;
}

#endif
