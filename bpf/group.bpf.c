// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Cgroups as they are made: what lives in one for a moment is told by its path all the same. */
#include "emit.bpf.h"

#define PATH 1024

struct group {
	struct group_event event;
	char path[PATH + 8]; /* what is told is a multiple of eight */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct group);
} groups __weak SEC(".maps");

SEC("raw_tp/cgroup_mkdir")
int BPF_PROG(group_made, struct cgroup *made, const char *path)
{
	__u32 zero = 0;
	struct group *group = bpf_map_lookup_elem(&groups, &zero);
	long length;

	/* The hierarchies of cgroup v1 have other numbers. */
	if (!group || BPF_CORE_READ(made, root, hierarchy_id))
		return 0;
	length = bpf_probe_read_kernel_str(group->path, PATH, path);
	if (length <= 1 || length >= PATH)
		return 0;
	group->event.id = BPF_CORE_READ(made, kn, id);
	group->event.length = length - 1;
	group->event.reserved = 0;
	output(&group->event.header, sizeof(group->event) + length + 7 & 0x7f8, KIND_GROUP);
	return 0;
}
