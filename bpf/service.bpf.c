// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * IPVS: which real server takes a connection to a virtual one, at the moment that is decided. That is when the first SYN
 * leaves, in the system call of whoever connects.
 */
#include "emit.bpf.h"
#include "conn.bpf.h"

/* Of net/ip_vs.h: unchanged since Linux 4.4, and not in the kernel's own BTF, as it is a module's. */
struct conn_param {
	const void *ipvs;
	const __u8 *client;
	const __u8 *asked;
	__be16 client_port;
	__be16 asked_port;
	__u16 protocol;
	__u16 family;
};

/* Not in every kernel, so not in vmlinux.h. */
struct net___with_ipvs {
	void *ipvs;
} __attribute__((preserve_access_index));

static __always_inline void take_end(__u8 *to, const __u8 *from, __u16 family)
{
	__u32 v4 = 0;

	if (family == AF_INET) {
		bpf_probe_read_kernel(&v4, sizeof(v4), from);
		put_v4(to, v4);
	} else {
		bpf_probe_read_kernel(to, 16, from);
	}
}

SEC("kprobe/ip_vs_conn_new")
int BPF_KPROBE(service_chosen, const void *param, int family, const __u8 *real, __be16 port)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct translation_event *event;
	struct conn_param asked = {};
	struct net *net = BPF_CORE_READ(task, nsproxy, net_ns);
	struct net___with_ipvs *with_ipvs = (void *)net;

	if (bpf_probe_read_kernel(&asked, sizeof(asked), param))
		return 0;
	/* A packet of somebody else's, in whose time this happens: it is no client of this host. */
	if (!bpf_core_field_exists(with_ipvs->ipvs) || BPF_CORE_READ(with_ipvs, ipvs) != asked.ipvs)
		return 0;
	event = reserve_record(sizeof(*event), KIND_TRANSLATION);
	if (!event)
		return 0;
	__builtin_memset(event->client, 0, 3 * sizeof(event->client));
	take_end(event->client, asked.client, asked.family);
	take_end(event->asked, asked.asked, asked.family);
	take_end(event->real, real, family);
	event->netns = BPF_CORE_READ(net, ns.inum);
	event->client_port = bpf_ntohs(asked.client_port);
	event->asked_port = bpf_ntohs(asked.asked_port);
	event->real_port = bpf_ntohs(port);
	event->kind = TRANSLATION_SERVICE;
	event->transport = asked.protocol;
	event->reserved = 0;
	submit(event);
	return 0;
}
