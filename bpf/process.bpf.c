// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Programs as they start, and who has them by fork(). Path and arguments are read at that moment: later the file may be
 * gone, the process too, and the arguments are what the process makes of them.
 */
#include "filter.bpf.h"
#include "process.bpf.h"

#define NAME 256 /* the longest name of a file, with its NUL */
#define NAMES 40
#define PATH 512
#define ARGUMENTS 1280

struct image {
	struct image_event event;
	__u8 payload[PATH + NAME + ARGUMENTS];
};

/* One CPU's: the kernel does not start a program on a CPU on which the same one was interrupted. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct image);
} images __weak SEC(".maps");

static __always_inline struct mount *mount_of(const struct vfsmount *mnt)
{
	return (struct mount *)((char *)mnt - bpf_core_field_offset(struct mount, mnt));
}

/*
 * From the file up to the root of its mount namespace; nothing if that is too far. How much is written stands in memory
 * all the time: the verifier knows nothing of it there, so one step is to it like another.
 */
static __always_inline void take_path(struct image *image, struct file *file)
{
	struct dentry *dentry = BPF_CORE_READ(file, f_path.dentry), *parent;
	struct mount *mount = mount_of(BPF_CORE_READ(file, f_path.mnt)), *up;
	volatile __u16 *at = &image->event.path;
	long length;
	bool alone;
	int step;

	for (step = 0; step < NAMES; step++) {
		if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
			up = BPF_CORE_READ(mount, mnt_parent);
			if (up == mount)
				return;
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = up;
			continue;
		}
		parent = BPF_CORE_READ(dentry, d_parent);
		alone = parent == dentry;
		if (alone && step)
			break;
		length = bpf_probe_read_kernel_str(image->payload + (*at & 2 * PATH - 1), NAME,
						   BPF_CORE_READ(dentry, d_name.name));
		if (length <= 0 || *at + length > PATH)
			break;
		*at += length;
		if (alone) /* in memory, and in no folder */
			return;
		dentry = parent;
	}
	*at = 0;
}

/* They were copied into the new program's memory just now; a page that the kernel is moving cannot be read. */
static __always_inline void take_arguments(struct image_event *event, __u8 *to, struct task_struct *task)
{
	__u64 from = BPF_CORE_READ(task, mm, arg_start), length = BPF_CORE_READ(task, mm, arg_end) - from;

	event->args_cut = length > ARGUMENTS;
	if (length > ARGUMENTS)
		length = ARGUMENTS;
	barrier_var(length);
	if (length > ARGUMENTS || bpf_probe_read_user(to, length, (void *)from))
		length = 0;
	event->args = length;
}

static __always_inline int on_exec(struct task_struct *task, struct linux_binprm *binprm)
{
	__u32 zero = 0, pid = BPF_CORE_READ(task, tgid), path;
	struct image *image = bpf_map_lookup_elem(&images, &zero);
	struct process fresh = {.origin_pid = pid};
	__u64 size;

	if (!image || (on(BY_PID) && !in_set(BY_PID, &pid, sizeof(pid))))
		return 0;
	fresh.id = fresh.image = next_id(task);
	fresh.born = fresh.origin_born = born(task);
	bpf_map_update_elem(&processes, &pid, &fresh, BPF_ANY);

	__builtin_memset(&image->event, 0, sizeof(image->event));
	image->event.id = fresh.id;
	image->event.pid = pid;
	take_path(image, BPF_CORE_READ(binprm, file));
	path = image->event.path;
	barrier_var(path);
	if (path > PATH)
		return 0;
	take_arguments(&image->event, image->payload + path, task);
	size = sizeof(image->event) + path + image->event.args + 7 & 0x7f8;
	output(&image->event.header, size, KIND_IMAGE);
	return 0;
}

/* A child runs what its parent runs, until it starts another program. */
static __always_inline int on_fork(struct task_struct *parent, struct task_struct *child)
{
	__u32 pid = BPF_CORE_READ(child, tgid), own = BPF_CORE_READ(parent, tgid);
	struct process fresh = {}, *from;

	if (pid == own)
		return 0;
	from = process_of(parent, own, born(parent));
	if (!from)
		return 0;
	fresh.id = next_id(child);
	fresh.image = from->image;
	fresh.born = born(child);
	fresh.origin_born = from->origin_born;
	fresh.origin_pid = from->origin_pid;
	bpf_map_update_elem(&processes, &pid, &fresh, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(image_btf, struct task_struct *task, int old_pid, struct linux_binprm *binprm)
{
	return on_exec(task, binprm);
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(image_raw, struct task_struct *task, int old_pid, struct linux_binprm *binprm)
{
	return on_exec(task, binprm);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(inherit_btf, struct task_struct *parent, struct task_struct *child)
{
	return on_fork(parent, child);
}

SEC("raw_tp/sched_process_fork")
int BPF_PROG(inherit_raw, struct task_struct *parent, struct task_struct *child)
{
	return on_fork(parent, child);
}
