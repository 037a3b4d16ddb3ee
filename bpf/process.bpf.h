/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Which process it is, and which program it runs: told once, ahead of the first record that refers to it. */
#ifndef PYTRACECON_PROCESS_BPF_H
#define PYTRACECON_PROCESS_BPF_H

#include "emit.bpf.h"

/* With another program it is another one. */
struct process {
	__u64 id;
	__u64 image;
	__u64 born;
	__u64 origin_born;
	__u32 origin_pid;
	__u32 told;
};

/* By number. LRU: who has to go is told anew when he is met again, with a program that is read from /proc then. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct process);
} processes __weak SEC(".maps");

/* The one that runs now; of an older program nothing is known but who has it. */
static __always_inline struct process *process_of(struct task_struct *task, __u32 pid, __u64 since)
{
	struct process fresh = {.born = since, .origin_born = since, .origin_pid = pid};
	struct process *known = bpf_map_lookup_elem(&processes, &pid);

	if (known && known->born == since)
		return known;
	fresh.id = fresh.image = next_id(task);
	bpf_map_update_elem(&processes, &pid, &fresh, BPF_ANY);
	return bpf_map_lookup_elem(&processes, &pid);
}

static __always_inline void tell(struct process *process, const struct task_struct *task)
{
	struct process_event *event = reserve_record(sizeof(*event), KIND_PROCESS);
	int at;

	if (!event)
		return;
	event->id = process->id;
	event->image = process->image;
	event->born = process->born;
	event->origin_born = process->origin_born;
	event->pid = BPF_CORE_READ(task, tgid);
	event->origin_pid = process->origin_pid;
	__builtin_memset(event->parents, 0, sizeof(event->parents));
	for (at = 0; at < PARENTS; at++) {
		task = BPF_CORE_READ(task, group_leader, real_parent);
		event->parents[at] = BPF_CORE_READ(task, tgid);
		if (!event->parents[at])
			break;
	}
	submit(event);
	process->told = 1;
}

#ifndef TELLS_INLINE
/*
 * The same, verified by itself and once, and not again on each way that leads here. Its arguments are numbers, as 5.10
 * takes no others, so it looks for the process again: it is called once in a process's life. Not for all: until 6.0 a
 * program with functions has no tail calls on arm64, and a program that has other functions takes 6.1 twice as long with
 * this one. A source of such programs defines TELLS_INLINE before its first include.
 */
__weak int tell_apart(__u64 task, __u32 pid)
{
	struct process *process = bpf_map_lookup_elem(&processes, &pid);

	if (process)
		tell(process, (const struct task_struct *)task);
	return 0;
}
#endif

/* The id under which user space knows the task's process from now on; 0 where nobody wants to. */
static __always_inline __u64 known_process(struct task_struct *task, __u32 pid, __u64 since)
{
	struct process *process;

	if (!wanted(KIND_PROCESS))
		return 0;
	process = process_of(task, pid, since);
	if (!process)
		return 0;
	if (!process->told)
#ifdef TELLS_INLINE
		tell(process, task);
#else
		tell_apart(number_of(task), pid);
#endif
	return process->id;
}

#endif
