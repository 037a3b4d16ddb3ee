/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Does a conversation look like QUIC? Its first packets have the server's name. */
#ifndef PYTRACECON_QUIC_BPF_H
#define PYTRACECON_QUIC_BPF_H

#include "datagram.bpf.h"
#include "hello.bpf.h"

#define LOOKED_AT 4 /* datagrams of a conversation that may show what it is */

struct quic_start {
	__u8 first;
	__u8 version[4];
};

static __always_inline __u32 quic_version(const struct quic_start *start)
{
	return (__u32)start->version[0] << 24 | start->version[1] << 16 | start->version[2] << 8 | start->version[3];
}

/* A long header (RFC 8999) of a version that is in use: 1, 2, a draft's, or one that asks for negotiation. */
static __always_inline __u8 app_of(struct __sk_buff *skb, __u32 from)
{
	struct quic_start start = {};
	__u32 version;

	if (skb->len < from + 21 || bpf_skb_load_bytes(skb, from, &start, sizeof(start)) || !(start.first & 0x80))
		return APP_UNKNOWN;
	version = quic_version(&start);
	if (version == 1 || version == 0x6b3343cf || version >> 8 == 0xff0000 || (version & 0x0f0f0f0f) == 0x0a0a0a0a)
		return start.first & 0x40 ? APP_QUIC : APP_UNKNOWN;
	return APP_UNKNOWN;
}

/*
 * The packets that QUIC's clients begin with (RFC 9001 and 9369 say how to read them), by datagram: what one call sent
 * as several (UDP_SEGMENT) is still in one piece here.
 */
static __noinline int tell_initials(struct __sk_buff *skb, const struct conversation *known, __u32 from, __u32 at)
{
	__u32 part, each = skb->gso_size, end = skb->len;

	if (!known)
		return 0;
	if (!each)
		each = end;
	for (part = 0; part < LOOKED_AT && at < LOOKED_AT && from < end; part++) {
		struct quic_start start = {};
		__u32 left = end - from, version;

		if (left < sizeof(start) || bpf_skb_load_bytes(skb, from, &start, sizeof(start)))
			break;
		version = quic_version(&start);
		if (left > each)
			left = each;
		if ((version == 1 && start.first >> 4 == 0xc) || (version == 0x6b3343cf && start.first >> 4 == 0xd))
			report_hello(skb, &known->conn, from, at, left < PART ? left : PART, PART);
		from += left;
		at++;
	}
	return 0;
}

#endif
