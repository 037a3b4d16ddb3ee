// SPDX-License-Identifier: GPL-2.0 OR MIT
/* How a conversation ends: with its socket or its process, or by the clock. */
#include "datagram.bpf.h"
#include "packet.bpf.h"

SEC("cgroup/sock_release")
int datagram_socket_released(struct bpf_sock *context)
{
	__u64 key = (__u64)address_of(context);
	struct datagram_socket *socket;
	struct conversation *known;
	struct conversation_key first;
	struct shared *page = shared_page();
	bool several;

	if (context->protocol != IPPROTO_UDP_NUMBER)
		return 1;
	socket = bpf_map_lookup_elem(&datagram_sockets, &key);
	if (!socket || !page)
		return 1;
	if (socket->any) {
		first = socket->first;
		known = bpf_map_lookup_elem(&conversations, &first);
		if (known)
			end_conversation(&first, known, ENDED_CLOSED);
	}
	several = socket->several;
	bpf_map_delete_elem(&datagram_sockets, &key);
	if (several)
		ask_for_a_sweep(page);
	return 1;
}

static __always_inline int on_owner_ended(struct task_struct *task)
{
	__u32 pid = BPF_CORE_READ(task, tgid);
	__u64 since = born(task);

	if (!BPF_CORE_READ(task, signal, live.counter))
		bpf_map_update_elem(&ended_owners, &pid, &since, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(datagram_owner_btf, struct task_struct *task)
{
	return on_owner_ended(task);
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(datagram_owner_raw, struct task_struct *task)
{
	return on_owner_ended(task);
}

/* 0 for one that goes on. */
static __always_inline __u8 how_ended(const struct conversation_key *key, const struct conversation *known,
				      const struct shared *page)
{
	__u64 sk = known->sk, *ended;
	__u32 pid = key->pid;
	struct datagram_socket *socket = bpf_map_lookup_elem(&datagram_sockets, &sk);

	if (!socket || socket->id != key->socket)
		return ENDED_CLOSED;
	ended = bpf_map_lookup_elem(&ended_owners, &pid);
	if (ended && *ended == known->conn.born)
		return ENDED_OWNER_GONE;
	if ((__s64)(bpf_ktime_get_ns() - known->last) >= (__s64)page->idle)
		return ENDED_IDLE;
	return page->stopping ? ENDED_STOPPED : 0;
}

/* Run by user space, by the clock. It reads the ring meanwhile to nobody: half of that is left to other events. */
SEC("iter/bpf_map_elem")
int sweep(struct bpf_iter__bpf_map_elem *context)
{
	struct conversation_key *at = context->key, key;
	struct conversation *known = context->value;
	struct shared *page = shared_page();
	__u8 ended;

	if (!at || !known || !page)
		return 0;
	if (!known->first)
		return 0;
	key = *at;
	ended = how_ended(&key, known, page);
	if (!ended)
		return 0;
	if (bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&ring, BPF_RB_RING_SIZE) / 2) {
		page->left = 1;
		return 0;
	}
	end_conversation(&key, known, ended);
	return 0;
}
