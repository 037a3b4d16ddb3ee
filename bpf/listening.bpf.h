/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Who listens where: an inbound connection that nobody has taken yet is the listener's. */
#ifndef PYTRACECON_LISTENING_BPF_H
#define PYTRACECON_LISTENING_BPF_H

#include "filter.bpf.h"

static __always_inline void count_listener(const struct sock *sk, struct task_struct *task, __u64 flags)
{
	struct listening fresh = {}, *known = NULL;
	struct listener_key key = {};
	__u64 socket = (__u64)sk;
	__u32 counted = 1;
	int error;

	error = put_into(&counted_listeners, &socket, &counted, flags);
	if (error == -ERROR_EEXIST)
		return;
	fresh.conn.netns = netns_of(sk);
	take_tuple(&fresh.conn, sk);
	fresh.sockets = 1;
	fresh.wanted = take_owner(&fresh.conn, task, OWNER_LISTEN);
	listener_key_of(&key, &fresh.conn);
	if (!error) {
		if (!bpf_map_update_elem(&listeners, &key, &fresh, BPF_NOEXIST))
			return;
		known = bpf_map_lookup_elem(&listeners, &key);
	}
	if (!known) {
		count_forgotten();
		return;
	}
	__sync_fetch_and_add(&known->sockets, 1);
	if (known->conn.pid != fresh.conn.pid)
		known->ambiguous = 1;
}

/* Runs in listen(): whoever runs is who listens. */
static __always_inline void on_listen(const struct sock *sk)
{
	count_listener(sk, current_task(), BPF_ANY);
}

/* Met in a process that holds it; also in one before, or seen in listen() by now: then it is counted. */
static __always_inline void found_listener(const struct sock *sk, struct task_struct *task)
{
	count_listener(sk, task, BPF_NOEXIST);
}

static __always_inline void on_listen_end(const struct sock *sk)
{
	struct listener_key key = {};
	__u64 socket = (__u64)sk;
	struct listening *known;
	struct conn conn = {};

	if (bpf_map_delete_elem(&counted_listeners, &socket))
		return;
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
