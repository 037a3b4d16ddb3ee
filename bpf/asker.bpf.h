/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Who asks for a name: the current task, at the moment it asks. */
#ifndef PYTRACECON_ASKER_BPF_H
#define PYTRACECON_ASKER_BPF_H

#include "filter.bpf.h"

/* A thread inside its libc's resolver. Also asked by the packets' side: what is sent meanwhile belongs to it. */
struct libc_call {
	__u64 since;
	__u64 returned;
	__u64 stack;     /* where its frame begins: a call from inside this one lies below */
	__u64 name_at;   /* in the process's memory */
	__u64 result_at; /* where the answer's address is put; 0: it is returned */
	__u64 h_errno_at;
	__u64 cursor; /* what is to be read next of the answer */
	__u64 number;
	__u32 resolver; /* enum resolver */
	__s32 family;   /* of the answer, gethostbyname's */
	__u32 parts;    /* records made of it */
	__s32 code;
	__s32 length; /* of the name with its NUL, up to one more than is told; negative: it could not be read */
	char name[NAME_SIZE + 8];
};

/* By task. LRU, as a process that is killed in the middle leaves its entry behind; large, as each CPU keeps a share. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct libc_call);
} libc_calls __weak SEC(".maps");

static __always_inline void take_asker(struct asker *asker, struct task_struct *task)
{
	asker->cgroup = cgroup_id(task);
	asker->born = born(task);
	asker->process = 0;
	asker->netns = BPF_CORE_READ(task, nsproxy, net_ns, ns.inum);
	asker->pid = BPF_CORE_READ(task, tgid);
	asker->tid = BPF_CORE_READ(task, pid);
	asker->uid = BPF_CORE_READ(task, cred, uid.val);
	__builtin_memset(asker->comm, 0, sizeof(asker->comm));
	__builtin_memset(asker->thread, 0, sizeof(asker->thread));
	BPF_CORE_READ_STR_INTO(&asker->comm, task, group_leader, comm);
	if (asker->tid != asker->pid)
		BPF_CORE_READ_STR_INTO(&asker->thread, task, comm);
}

static __always_inline bool asker_wanted(const struct asker *asker, struct task_struct *task)
{
	if (on(BY_PID) && !in_set(BY_PID, &asker->pid, sizeof(asker->pid)))
		return false;
	if (on(BY_UID) && !in_set(BY_UID, &asker->uid, sizeof(asker->uid)))
		return false;
	if (on(BY_COMM) && !in_set(BY_COMM, asker->comm, sizeof(asker->comm)))
		return false;
	if ((on(BY_CGROUP) && !in_cgroups(task)) || !in_pinned_maps(task))
		return false;
	return !on(BY_NETNS) || in_set(BY_NETNS, &asker->netns, sizeof(asker->netns));
}

#endif
