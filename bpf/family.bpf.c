// SPDX-License-Identifier: GPL-2.0 OR MIT
/* A filter on processes follows them: children are added as they are born (--children), the dead are removed. */
#include "filter.bpf.h"

static __always_inline int on_fork(struct task_struct *parent, struct task_struct *child)
{
	struct filter_key key = {.set = BY_PID};
	__u32 from = BPF_CORE_READ(parent, tgid), to = BPF_CORE_READ(child, tgid), one = 1;

	if (!on(BY_CHILDREN) || from == to || !in_set(BY_PID, &from, sizeof(from)))
		return 0;
	__builtin_memcpy(key.value, &to, sizeof(to));
	if (bpf_map_update_elem(&filter_values, &key, &one, BPF_ANY))
		count_forgotten();
	return 0;
}

/* With its last thread the number is free for somebody else. */
static __always_inline int on_exit(struct task_struct *task)
{
	struct filter_key key = {.set = BY_PID};
	__u32 pid = BPF_CORE_READ(task, tgid);

	if (BPF_CORE_READ(task, signal, live.counter))
		return 0;
	__builtin_memcpy(key.value, &pid, sizeof(pid));
	bpf_map_delete_elem(&filter_values, &key);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(fork_btf, struct task_struct *parent, struct task_struct *child)
{
	return on_fork(parent, child);
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(fork_raw, struct task_struct *parent, struct task_struct *child)
{
	return on_fork(parent, child);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exit_btf, struct task_struct *task)
{
	return on_exit(task);
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(exit_raw, struct task_struct *task)
{
	return on_exit(task);
}
