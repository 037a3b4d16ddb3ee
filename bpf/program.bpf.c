// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Programs that start: a new one may bring a libc along in which no lookup is seen yet, and whoever replaced a libc on
 * disk shows at the next start of any program. Told are those not seen before, and one a second of each mount namespace.
 */
#include "filter.bpf.h"

struct program_key {
	__u64 inode; /* 0: any program of the mount namespace */
	__u32 device;
	__u32 mount_namespace;
};

/* When each was told last. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct program_key);
	__type(value, __u64);
} programs __weak SEC(".maps");

#define SECOND 1000000000ULL

static __always_inline int on_program(struct task_struct *task, struct linux_binprm *binprm)
{
	struct inode *inode = BPF_CORE_READ(binprm, file, f_inode);
	struct program_key key = {}, any = {};
	struct program_event *event;
	__u64 now = bpf_ktime_get_ns(), *told;

	any.mount_namespace = key.mount_namespace = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
	key.inode = BPF_CORE_READ(inode, i_ino);
	key.device = BPF_CORE_READ(inode, i_sb, s_dev);
	told = bpf_map_lookup_elem(&programs, &any);
	if (bpf_map_lookup_elem(&programs, &key) && told && now - *told < SECOND)
		return 0;
	bpf_map_update_elem(&programs, &key, &now, BPF_ANY);
	bpf_map_update_elem(&programs, &any, &now, BPF_ANY);
	event = reserve_record(sizeof(*event), KIND_PROGRAM);
	if (!event)
		return 0;
	event->inode = key.inode;
	event->device = key.device;
	event->mount_namespace = key.mount_namespace;
	event->pid = BPF_CORE_READ(task, tgid);
	event->reserved = 0;
	submit(event);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(program_btf, struct task_struct *task, int old_pid, struct linux_binprm *binprm)
{
	return on_program(task, binprm);
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(program_raw, struct task_struct *task, int old_pid, struct linux_binprm *binprm)
{
	return on_program(task, binprm);
}
