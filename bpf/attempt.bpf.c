// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Outbound attempts that end inside connect() and leave no error on the socket. Three rungs: fentry/fexit,
 * kprobe/kretprobe, and hooks of the cgroup with the connect() system call.
 */
#define CURRENT_TASK
#include "attempt.bpf.h"
#include "first_syn.bpf.h"
#include "file.bpf.h"

SEC("kprobe/tcp_connect")
int BPF_KPROBE(first_syn_kprobe, struct sock *sk)
{
	return on_first_syn(sk);
}

/* An IPv6 socket connects to a mapped address through the IPv4 function, which has told it already. */
static __always_inline int on_attempt_returned_v6(const struct sock *sk, const struct sockaddr *addr, int result)
{
	struct conn conn = {};

	take_remote(&conn, addr);
	if (is_v4(conn.remote_addr) && !BPF_CORE_READ_BITFIELD_PROBED(sk, __sk_common.skc_ipv6only))
		return 0;
	return on_attempt_returned(sk, addr, result);
}

static __always_inline int on_denied_early(const struct sock *sk, const struct sockaddr *addr, int result)
{
	return result ? on_attempt_returned(sk, addr, result) : 0;
}

static __always_inline int on_denied(const struct socket *socket, const struct sockaddr *addr, int result)
{
	const struct sock *sk;

	if (!result)
		return 0;
	sk = BPF_CORE_READ(socket, sk);
	if (BPF_CORE_READ(sk, __sk_common.skc_state) != STATE_CLOSE)
		return 0;
	return on_attempt_returned(sk, addr, result);
}

SEC("fexit/tcp_v4_connect")
int BPF_PROG(connect_v4_fexit, struct sock *sk, struct sockaddr *addr, int size, int result)
{
	return on_attempt_returned(sk, addr, result);
}

SEC("fexit/tcp_v6_connect")
int BPF_PROG(connect_v6_fexit, struct sock *sk, struct sockaddr *addr, int size, int result)
{
	return on_attempt_returned_v6(sk, addr, result);
}

/* Where a cgroup's own program says no. */
SEC("fexit/tcp_v4_pre_connect")
int BPF_PROG(pre_connect_v4_fexit, struct sock *sk, struct sockaddr *addr, int size, int result)
{
	return on_denied_early(sk, addr, result);
}

SEC("fexit/tcp_v6_pre_connect")
int BPF_PROG(pre_connect_v6_fexit, struct sock *sk, struct sockaddr *addr, int size, int result)
{
	return on_denied_early(sk, addr, result);
}

/* Where a security module says no. */
SEC("fexit/security_socket_connect")
int BPF_PROG(denied_fexit, struct socket *socket, struct sockaddr *addr, int size, int result)
{
	return on_denied(socket, addr, result);
}

/* A kretprobe does not see the arguments: they wait here, by thread and function (an IPv6 one calls the IPv4 one). */
struct call_key {
	__u64 thread;
	__u64 function;
};

struct call {
	__u64 object;
	__u64 addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct call_key);
	__type(value, struct call);
} calls SEC(".maps");

enum function { CONNECT_V4, CONNECT_V6, PRE_CONNECT_V4, PRE_CONNECT_V6, SECURITY_CONNECT };

static __always_inline int enter(enum function function, const void *object, const void *addr)
{
	struct call_key key = {bpf_get_current_pid_tgid(), function};
	struct call call = {(__u64)object, (__u64)addr};

	if (bpf_map_update_elem(&calls, &key, &call, BPF_ANY))
		count_forgotten();
	return 0;
}

static __always_inline bool leave(enum function function, struct call *call)
{
	struct call_key key = {bpf_get_current_pid_tgid(), function};
	struct call *found = bpf_map_lookup_elem(&calls, &key);

	if (!found)
		return false;
	*call = *found;
	bpf_map_delete_elem(&calls, &key);
	return true;
}

#define ENTER_AND_LEAVE(name, symbol, function, handler, object_type)                                                  \
	SEC("kprobe/" #symbol)                                                                                         \
	int BPF_KPROBE(name##_kprobe, object_type *object, struct sockaddr *addr)                                      \
	{                                                                                                              \
		return enter(function, object, addr);                                                                  \
	}                                                                                                              \
	SEC("kretprobe/" #symbol)                                                                                      \
	int BPF_KRETPROBE(name##_kretprobe, int result)                                                                \
	{                                                                                                              \
		struct call call;                                                                                      \
                                                                                                                       \
		if (!leave(function, &call))                                                                           \
			return 0;                                                                                      \
		return handler((object_type *)call.object, (struct sockaddr *)call.addr, result);                      \
	}

ENTER_AND_LEAVE(connect_v4, tcp_v4_connect, CONNECT_V4, on_attempt_returned, struct sock)
ENTER_AND_LEAVE(connect_v6, tcp_v6_connect, CONNECT_V6, on_attempt_returned_v6, struct sock)
ENTER_AND_LEAVE(pre_connect_v4, tcp_v4_pre_connect, PRE_CONNECT_V4, on_denied_early, struct sock)
ENTER_AND_LEAVE(pre_connect_v6, tcp_v6_pre_connect, PRE_CONNECT_V6, on_denied_early, struct sock)
ENTER_AND_LEAVE(denied, security_socket_connect, SECURITY_CONNECT, on_denied, struct socket)

/*
 * Without probes on functions: a hook of the root cgroup has the kernel's copy of the address, the system call has
 * the result.
 */
SEC("tracepoint/syscalls/sys_enter_connect")
int connect_enter(struct trace_event_raw_sys_enter *context)
{
	struct syscall_attempt attempt = {.fd = context->args[0]};
	__u64 task = bpf_get_current_task();

	if (bpf_map_update_elem(&syscall_attempts, &task, &attempt, BPF_ANY))
		count_forgotten();
	return 0;
}

static __always_inline void fill_attempt(struct bpf_sock_addr *context, const __u32 *addr, bool v4)
{
	__u64 task = bpf_get_current_task();
	struct syscall_attempt *attempt = bpf_map_lookup_elem(&syscall_attempts, &task), fresh = {};
	struct bpf_sock *sk = context->sk;
	struct tcp_sock *tp;
	__u64 key;

	if (!attempt)
		attempt = &fresh;
	if (v4)
		put_v4(attempt->addr, addr[0]);
	else
		__builtin_memcpy(attempt->addr, addr, sizeof(attempt->addr));
	attempt->port = bpf_ntohs(context->user_port);
	attempt->known = 1;
	if (attempt != &fresh || !sk)
		return;
	tp = (struct tcp_sock *)bpf_skc_to_tcp_sock(sk);
	if (!tp)
		return;
	key = (__u64)tp;
	if (bpf_map_update_elem(&uring_attempts, &key, &fresh, BPF_ANY))
		count_forgotten();
}

SEC("cgroup/connect4")
int connect_cgroup4(struct bpf_sock_addr *context)
{
	__u32 addr = context->user_ip4;

	fill_attempt(context, &addr, true);
	return 1;
}

SEC("cgroup/connect6")
int connect_cgroup6(struct bpf_sock_addr *context)
{
	__u32 addr[4] = {context->user_ip6[0], context->user_ip6[1], context->user_ip6[2], context->user_ip6[3]};

	fill_attempt(context, addr, false);
	return 1;
}

SEC("tracepoint/syscalls/sys_exit_connect")
int connect_exit(struct trace_event_raw_sys_exit *context)
{
	__u64 task = bpf_get_current_task();
	struct syscall_attempt *found = bpf_map_lookup_elem(&syscall_attempts, &task), attempt;
	const struct sock *sk;

	if (!found)
		return 0;
	attempt = *found;
	bpf_map_delete_elem(&syscall_attempts, &task);
	if (attempt.sk) {
		on_attempt_left((const struct sock *)attempt.sk, context->ret);
		return 0;
	}
	sk = sock_of_fd(attempt.fd);
	if (sk)
		on_connect_exit(sk, &attempt, context->ret);
	return 0;
}
