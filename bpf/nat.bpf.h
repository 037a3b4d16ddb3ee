/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Where a connection's first packet really goes, as it leaves: behind all that translates addresses in its own network namespace. */
#ifndef PYTRACECON_NAT_BPF_H
#define PYTRACECON_NAT_BPF_H

#include "packet.bpf.h"

static __always_inline void report_nat(const struct conn *conn, const __u8 *real, __u16 real_port, __u8 transport)
{
	struct translation_event *event = reserve_record(sizeof(*event), KIND_TRANSLATION);

	if (!event)
		return;
	__builtin_memcpy(event->client, conn->local_addr, sizeof(event->client));
	__builtin_memcpy(event->asked, conn->remote_addr, sizeof(event->asked));
	__builtin_memcpy(event->real, real, sizeof(event->real));
	event->netns = conn->netns;
	event->client_port = conn->local_port;
	event->asked_port = conn->remote_port;
	event->real_port = real_port;
	event->kind = TRANSLATION_NAT;
	event->transport = transport;
	event->reserved = 0;
	submit(event);
}

#endif
