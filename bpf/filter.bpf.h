/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* Which connections are wanted. What is not known does not match: nobody is shown by a guess. */
#ifndef PYTRACECON_FILTER_BPF_H
#define PYTRACECON_FILTER_BPF_H

#include "conn.bpf.h"
#include "process.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct filter_key);
	__type(value, __u32);
} filter_values __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, struct port_set);
} filter_ports __weak SEC(".maps");

struct prefix_map {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct prefix_key);
	__type(value, __u32);
};
struct prefix_map filter_remote __weak SEC(".maps");
struct prefix_map filter_local __weak SEC(".maps");
struct prefix_map filter_not_remote __weak SEC(".maps");

/* As the tools of bcc take them: replaced by the pinned maps that the user names. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u64);
} pinned_cgroups __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u32);
} pinned_mntns __weak SEC(".maps");

static __always_inline bool on(__u32 bit)
{
	return settings.filters & bit;
}

static __always_inline bool in_set(__u32 set, const void *value, __u32 size)
{
	struct filter_key key = {.set = set};

	__builtin_memcpy(key.value, value, size);
	return bpf_map_lookup_elem(&filter_values, &key);
}

static __always_inline bool in_ports(__u32 which, __u16 port)
{
	struct port_set *ports = bpf_map_lookup_elem(&filter_ports, &which);

	return ports && ports->words[port >> 6] >> (port & 63) & 1;
}

static __always_inline bool in_prefixes(void *map, const __u8 *addr)
{
	struct prefix_key key = {.bits = 128};
	__u32 *member;

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	member = bpf_map_lookup_elem(map, &key);
	return member && *member;
}

/* A cgroup is meant with all below it. */
static __always_inline bool in_cgroups(struct task_struct *task)
{
	struct cgroup *group = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	int depth;

	for (depth = 0; depth < 32 && group; depth++) {
		__u64 id = BPF_CORE_READ(group, kn, id);

		if (in_set(BY_CGROUP, &id, sizeof(id)))
			return true;
		group = BPF_CORE_READ(group, self.parent, cgroup);
	}
	return false;
}

/* Keys are cgroup ids and inodes of mount namespaces. Only these themselves are meant, not what is below a cgroup. */
static __always_inline bool in_pinned_maps(struct task_struct *task)
{
	__u64 key;

	if (on(BY_CGROUPMAP)) {
		key = cgroup_id(task);
		if (!bpf_map_lookup_elem(&pinned_cgroups, &key))
			return false;
	}
	if (on(BY_MNTNSMAP)) {
		key = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
		if (!bpf_map_lookup_elem(&pinned_mntns, &key))
			return false;
	}
	return true;
}

/* The owner's part, decided once, when the owner is taken. */
static __always_inline bool owner_wanted(const struct conn *conn, struct task_struct *task)
{
	if (on(BY_PID) && !in_set(BY_PID, &conn->pid, sizeof(conn->pid)))
		return false;
	if (on(BY_UID) && !in_set(BY_UID, &conn->uid, sizeof(conn->uid)))
		return false;
	if (on(BY_COMM) && !in_set(BY_COMM, conn->comm, sizeof(conn->comm)))
		return false;
	if (on(BY_CGROUP) && !in_cgroups(task))
		return false;
	return in_pinned_maps(task);
}

/* Whether it is wanted then. */
static __always_inline bool take_owner(struct conn *conn, struct task_struct *task, __u8 source)
{
	take_task(conn, task, source);
	conn->process = 0;
	if (!owner_wanted(conn, task))
		return false;
	conn->process = known_process(task, conn->pid, conn->born);
	return true;
}

/* What of the filters needs an owner: without one, a connection is held back. */
#define BY_OWNER (BY_PID | BY_UID | BY_COMM | BY_CGROUP | BY_CGROUPMAP | BY_MNTNSMAP)

/* The rest: both ends and where. Ports and addresses must be known by now. */
static __always_inline bool tuple_wanted(const struct conn *conn)
{
	/* Most often. It is shorter so, and this stands in many places. */
	if (!settings.filters && !settings.direction && !settings.family)
		return true;
	if (settings.direction && conn->direction != settings.direction)
		return false;
	if (settings.family && settings.family != (is_v4(conn->remote_addr) ? 4 : 6))
		return false;
	if (on(BY_NETNS) && !in_set(BY_NETNS, &conn->netns, sizeof(conn->netns)))
		return false;
	if (on(BY_REMOTE_PORT) && !in_ports(0, conn->remote_port))
		return false;
	if (on(BY_LOCAL_PORT) && !in_ports(1, conn->local_port))
		return false;
	if (on(BY_NOT_REMOTE_PORT) && in_ports(2, conn->remote_port))
		return false;
	if (on(BY_REMOTE) && !in_prefixes(&filter_remote, conn->remote_addr))
		return false;
	if (on(BY_LOCAL) && !in_prefixes(&filter_local, conn->local_addr))
		return false;
	return !on(BY_NOT_REMOTE) || !in_prefixes(&filter_not_remote, conn->remote_addr);
}

#endif
