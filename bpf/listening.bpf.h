/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Who listens where: an inbound connection that nobody has taken yet is the listener's. */
#ifndef PYTRACECON_LISTENING_BPF_H
#define PYTRACECON_LISTENING_BPF_H

#include "filter.bpf.h"

/* Runs in listen(): whoever runs is who listens. */
static __always_inline void on_listen(const struct sock *sk)
{
	struct listener_key key = {};
	struct listening fresh = {}, *known;

	fresh.conn.netns = netns_of(sk);
	take_tuple(&fresh.conn, sk);
	fresh.sockets = 1;
	fresh.wanted = take_owner(&fresh.conn, current_task(), OWNER_LISTEN);
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

#endif
