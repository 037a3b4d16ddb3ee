/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The first bytes of outbound connections, where these look like TLS or QUIC: the server's name is in them. */
#ifndef PYTRACECON_HELLO_BPF_H
#define PYTRACECON_HELLO_BPF_H

#include "packet.bpf.h"

#define HELLO_PARTS 4
#define HELLO_LARGEST (HELLO_PARTS * PART) /* of the stream; a ClientHello of today has 2,000 bytes at most */

static __always_inline void report_hello(struct __sk_buff *skb, const struct conn *conn, __u32 from, __u32 at,
					 __u32 length, const __u32 room)
{
	struct hello_event *event = reserve(sizeof(*event) + room, KIND_HELLO, conn);

	if (!event)
		return;
	event->at = at;
	event->length = load(skb, from, event + 1, length, room);
	submit(event);
}

struct tls_start {
	__u8 type, major, minor, length[2]; /* of the record */
	__u8 handshake, size[3];
};

/* Where a ClientHello that begins here ends in the stream; 0 if this is none. */
static __always_inline __u32 hello_end(struct __sk_buff *skb, __u32 from, __u32 size)
{
	struct tls_start start = {};
	__u32 end;

	if (bpf_skb_load_bytes(skb, from, &start, 1) || start.type != 22)
		return 0;
	/* Cut that short, the rest comes in later segments. */
	if (size < sizeof(start) || bpf_skb_load_bytes(skb, from, &start, sizeof(start)))
		return HELLO_LARGEST;
	if (start.major != 3 || start.handshake != 1)
		return 0;
	end = sizeof(start) + ((__u32)start.size[0] << 16 | start.size[1] << 8 | start.size[2]);
	return end < HELLO_LARGEST ? end : HELLO_LARGEST;
}

static __always_inline void on_first_bytes(struct __sk_buff *skb, struct bpf_sock *sk)
{
	struct bpf_tcp_sock *tp = bpf_tcp_sock(sk);
	struct sock_state *state;
	struct layout layout = {};
	__u32 at, size, part, end = 0;
	__u64 acked;

	if (!tp)
		return;
	acked = tp->bytes_acked; /* the SYN is counted */
	if (acked > HELLO_LARGEST || !take_layout(&layout, skb, true, true) || skb->len <= layout.payload)
		return;
	size = skb->len - layout.payload;
	at = layout.seq - tp->snd_una + (__u32)acked - 1;
	if (at == (__u32)-1)
		at = 0; /* fast open: the bytes that the SYN brings along */
	if (at >= HELLO_LARGEST)
		return;
	if (!at) {
		end = hello_end(skb, layout.payload, size);
		if (!end)
			return;
	}
	state = state_of(address_of(sk));
	if (!state || state->conn.direction != DIRECTION_OUT)
		return;
	if (!at)
		state->hello_end = end;
	for (part = 0; part < HELLO_PARTS; part++) {
		__u32 done = part * PART, left = size - done;

		if (done >= size || at + done >= state->hello_end)
			break;
		if (left <= 512)
			report_hello(skb, &state->conn, layout.payload + done, at + done, left, 512);
		else
			report_hello(skb, &state->conn, layout.payload + done, at + done, left < PART ? left : PART,
				     PART);
	}
}

#endif
