/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the programs stand on, and every difference between kernels, each with its commit. Nothing here compares
 * versions: a field or a type is there or it is not.
 */
#ifndef PYTRACECON_COMPAT_BPF_H
#define PYTRACECON_COMPAT_BPF_H

#ifndef WHOLE_VMLINUX /* scripts/gen_vmlinux.sh compiles once against all types, to see which are touched */
#include <linux/bpf.h>
#endif
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>

#ifndef WHOLE_VMLINUX
#define NULL ((void *)0)
enum { false, true };

/* The frame a kprobe sees: fixed by each architecture's user ABI, so it needs no relocation. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31], sp, pc, pstate;
};
struct pt_regs;
#endif
#endif
#include <bpf/bpf_tracing.h>

/* What a user's function is called with, and what a call leaves on the stack. Not all of it is in Debian 12's macros. */
#if defined(__TARGET_ARCH_x86)
#define USER_ARG_1(regs) ((regs)->di)
#define USER_ARG_4(regs) ((regs)->cx)
#define USER_ARG_5(regs) ((regs)->r8)
#define USER_ARG_6(regs) ((regs)->r9)
#define RETURN_ADDRESS 8
static __always_inline __u64 user_arg_7(const struct pt_regs *regs)
{
	__u64 argument = 0;

	bpf_probe_read_user(&argument, sizeof(argument), (void *)(regs->sp + RETURN_ADDRESS));
	return argument;
}
#elif defined(__TARGET_ARCH_arm64)
#define USER_ARG(regs, number) (((const struct user_pt_regs *)(regs))->regs[(number) - 1])
#define USER_ARG_1(regs) USER_ARG(regs, 1)
#define USER_ARG_4(regs) USER_ARG(regs, 4)
#define USER_ARG_5(regs) USER_ARG(regs, 5)
#define USER_ARG_6(regs) USER_ARG(regs, 6)
#define RETURN_ADDRESS 0
static __always_inline __u64 user_arg_7(const struct pt_regs *regs)
{
	return USER_ARG(regs, 7);
}
#endif

/*
 * Reading a member is a call of some 15 ns, or one instruction where the verifier knows what the pointer points to. A
 * source whose sockets are arguments of tracepoints by BTF, and no others, defines VOUCHED_SOCK before its first
 * include. Numbers only: for each pointer that a program loads so, the verifier searches all the kernel's types by name,
 * which made a start 100 ms longer on 6.18.
 */
#ifdef VOUCHED_SOCK
#define READ_SOCK(...) ___arrow(__VA_ARGS__)
#else
#define READ_SOCK(...) BPF_CORE_READ(__VA_ARGS__)
#endif

/* To the verifier a pointer has no bits: it is read as bytes. */
static __always_inline __u64 number_of(const void *pointer)
{
	__u64 number = 0;

	bpf_probe_read_kernel(&number, sizeof(number), &pointer);
	return number;
}

static __always_inline struct task_struct *current_task(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

/*
 * What bpf_map_update_elem() says. Until d7ba4cc900bf (v6.4) the maps' functions return an int, and are called as they are:
 * of a register that is taken for a long the upper half is not that of a negative number.
 */
static __always_inline int put_into(void *map, const void *key, const void *value, __u64 flags)
{
	return bpf_map_update_elem(map, key, value, flags);
}

/* To clang that is where the code goes straight on, and to the verifier the way that it follows first. */
#define LIKELY(condition) __builtin_expect(!!(condition), 1)

#define AF_INET 2
#define AF_INET6 10
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define SOCKFS_MAGIC 0x534F434B
#define SOCK_STREAM_NUMBER 1
#define SOCK_DGRAM_NUMBER 2
#define IPPROTO_TCP_NUMBER 6
#define IPPROTO_UDP_NUMBER 17
#define IPPROTO_MPTCP_NUMBER 262

/* From the socket API, unchanged since they were made public. */
enum tcp_states {
	STATE_ESTABLISHED = 1,
	STATE_SYN_SENT,
	STATE_SYN_RECV,
	STATE_FIN_WAIT1,
	STATE_FIN_WAIT2,
	STATE_TIME_WAIT,
	STATE_CLOSE,
	STATE_CLOSE_WAIT,
	STATE_LAST_ACK,
	STATE_LISTEN,
	STATE_CLOSING,
	STATE_NEW_SYN_RECV,
};

/* `states` is a bit for each. One branch, or none: the verifier follows each that there is through what comes after. */
static __always_inline bool is_one_of(int state, __u32 states)
{
	return states >> (state & 31) & 1;
}

enum errors {
	ERROR_EPERM = 1,
	ERROR_EINTR = 4,
	ERROR_E2BIG = 7,
	ERROR_EACCES = 13,
	ERROR_EEXIST = 17,
	ERROR_EPIPE = 32,
	ERROR_ECONNABORTED = 103,
	ERROR_ECONNRESET = 104,
	ERROR_EISCONN = 106,
	ERROR_EALREADY = 114,
	ERROR_EINPROGRESS = 115,
	ERROR_ERESTARTSYS = 512,
};

/* struct sock::sk_flags, bits of enum sock_flags: the first two since 2.6. */
#define SOCK_FLAG_DEAD (1UL << 0)
#define SOCK_FLAG_DONE (1UL << 1)

/* struct sock::sk_shutdown: nothing more is taken. */
#define RCV_SHUTDOWN 1

static __always_inline struct tcp_sock *tcp_sk(const struct sock *sk)
{
	return (struct tcp_sock *)sk;
}

static __always_inline struct inet_sock *inet_sk(const struct sock *sk)
{
	return (struct inet_sock *)sk;
}

/* The same, to read from with READ_SOCK(); NULL if it is none. */
static __always_inline const struct tcp_sock *read_tcp(const struct sock *sk)
{
#ifdef VOUCHED_SOCK
	return bpf_skc_to_tcp_sock((void *)sk);
#else
	return tcp_sk(sk);
#endif
}

/* The source port; MPTCP's own sockets are no TCP sockets. */
static __always_inline __be16 source_port(const struct sock *sk)
{
	const struct tcp_sock *tp = read_tcp(sk);

	return tp ? READ_SOCK(tp, inet_conn.icsk_inet.inet_sport) : BPF_CORE_READ(inet_sk(sk), inet_sport);
}

static __always_inline struct udp_sock *udp_sk(const struct sock *sk)
{
	return (struct udp_sock *)sk;
}

static __always_inline struct mptcp_sock *mptcp_sk(const struct sock *sk)
{
	return (struct mptcp_sock *)sk;
}

/* The MPTCP connection that a TCP socket is a path of. A kernel without CONFIG_MPTCP (Debian's 5.10) has none. */
static __always_inline struct sock *subflow_parent(const struct sock *sk)
{
	const struct inet_connection_sock *icsk = (const struct inet_connection_sock *)sk;
	struct mptcp_subflow_context *context;

	if (!bpf_core_field_exists(tcp_sk(sk)->is_mptcp) || !bpf_core_type_exists(struct mptcp_subflow_context))
		return NULL;
	if (!BPF_CORE_READ_BITFIELD_PROBED(tcp_sk(sk), is_mptcp))
		return NULL;
	context = BPF_CORE_READ(icsk, icsk_ulp_data);
	return context ? BPF_CORE_READ(context, conn) : NULL;
}

/* When the process started, by the clock that runs in suspend. */
static __always_inline __u64 born(const struct task_struct *task)
{
	return BPF_CORE_READ(task, group_leader, start_boottime);
}

static __always_inline __u64 cgroup_id(const struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
}

/*
 * What the kernel has a helper for. They tell of the current task only, and not to every kind of program: a source that
 * has nothing to do with others defines CURRENT_TASK before its first include.
 */
static __always_inline __u64 thread_of(const struct task_struct *task)
{
#ifdef CURRENT_TASK
	return bpf_get_current_pid_tgid();
#else
	return (__u64)BPF_CORE_READ(task, tgid) << 32 | (__u32)BPF_CORE_READ(task, pid);
#endif
}

static __always_inline __u32 user_of(const struct task_struct *task)
{
#ifdef CURRENT_TASK
	return bpf_get_current_uid_gid();
#else
	return BPF_CORE_READ(task, cred, uid.val);
#endif
}

static __always_inline __u64 group_of(const struct task_struct *task)
{
#ifdef CURRENT_TASK
	return bpf_get_current_cgroup_id();
#else
	return cgroup_id(task);
#endif
}

#endif
