/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What a connect() comes to that leaves no error on the socket, whichever hook saw it return. */
#ifndef PYTRACECON_ATTEMPT_BPF_H
#define PYTRACECON_ATTEMPT_BPF_H

#include "report.bpf.h"

static __always_inline bool take_remote(struct conn *conn, const struct sockaddr *addr)
{
	__u16 family = BPF_CORE_READ(addr, sa_family);

	__builtin_memset(conn->remote_addr, 0, sizeof(conn->remote_addr));
	conn->remote_port = 0;
	conn->flags &= ~CONN_V4_MAPPED;
	if (family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)addr;

		put_v4_in_halves(conn->remote_addr, BPF_CORE_READ(in, sin_addr.s_addr));
		conn->remote_port = bpf_ntohs(BPF_CORE_READ(in, sin_port));
	} else if (family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;

		BPF_CORE_READ_INTO(&conn->remote_addr, in6, sin6_addr);
		conn->remote_port = bpf_ntohs(BPF_CORE_READ(in6, sin6_port));
	}
	return family == AF_INET || family == AF_INET6;
}

static __always_inline bool owns_v4_mapped(const struct sock *sk, const struct conn *conn)
{
	return is_v4(conn->remote_addr) && BPF_CORE_READ(sk, __sk_common.skc_family) == AF_INET6;
}

static __always_inline bool begin_failed(struct sock_state *fresh, const struct sock *sk, __u8 protocol)
{
	struct task_struct *task = current_task();

	begin(fresh, sk, protocol, DIRECTION_OUT);
	if (fresh->conn.subflow_of)
		return true;
	return take_owner(&fresh->conn, task, OWNER_CONNECT);
}

static __always_inline int on_attempt_returned(const struct sock *sk, const struct sockaddr *addr, int result)
{
	struct sock_state *state = state_of(sk), fresh = {};
	__u8 protocol = protocol_of(sk);

	if (!protocol)
		return 0;
	if (!result) {
		if (state)
			state->phase &= ~PHASE_IN_CONNECT;
		return 0;
	}
	if (state) {
		if (state->phase & PHASE_PENDING && matched(sk, state)) {
			report_failed(state, sk, -result);
			forget(sk);
		}
		return 0;
	}
	if (!begin_failed(&fresh, sk, protocol))
		return 0;
	take_remote(&fresh.conn, addr);
	if (owns_v4_mapped(sk, &fresh.conn))
		fresh.conn.flags |= CONN_V4_MAPPED;
	if (tuple_wanted(&fresh.conn))
		report_failed(&fresh, sk, -result);
	return 0;
}

/*
 * A second connect() on the same socket only fetches the first one's error and never gets to the hook; a security
 * module says no before it.
 */
static __always_inline bool ends_attempt(const struct syscall_attempt *attempt, long result)
{
	if (!attempt->known)
		return result == -ERROR_EPERM || result == -ERROR_EACCES;
	return result < 0 && result != -ERROR_EINPROGRESS && result != -ERROR_EALREADY && result != -ERROR_EISCONN &&
	       result != -ERROR_EINTR && result > -ERROR_ERESTARTSYS;
}

/* Of a socket that has an entry; false if it has none. */
static __always_inline bool on_attempt_left(const struct sock *sk, long result)
{
	struct sock_state *state = state_of(sk);

	if (!state)
		return false;
	if (state->phase & PHASE_PENDING && matched(sk, state)) {
		report_failed(state, sk, -result);
		forget(sk);
	} else {
		state->phase &= ~PHASE_IN_CONNECT;
	}
	return true;
}

static __always_inline void on_connect_exit(const struct sock *sk, const struct syscall_attempt *attempt, long result)
{
	struct sock_state fresh = {};
	__u8 protocol;

	protocol = protocol_of(sk);
	if (!protocol || on_attempt_left(sk, result))
		return;
	/* No entry: it never came as far as SYN_SENT, or what came of it has been told. */
	if (attempt->began || !ends_attempt(attempt, result) || BPF_CORE_READ(sk, __sk_common.skc_state) != STATE_CLOSE)
		return;
	/* A raw socket has the number of what it carries, and asks nobody for a connection. */
	if (transport_of(sk) != protocol || !begin_failed(&fresh, sk, protocol))
		return;
	if (attempt->known) {
		__builtin_memcpy(fresh.conn.remote_addr, attempt->addr, sizeof(attempt->addr));
		fresh.conn.remote_port = attempt->port;
		if (owns_v4_mapped(sk, &fresh.conn))
			fresh.conn.flags |= CONN_V4_MAPPED;
	} else {
		__builtin_memset(fresh.conn.remote_addr, 0, sizeof(fresh.conn.remote_addr));
		fresh.conn.remote_port = 0;
	}
	if (tuple_wanted(&fresh.conn))
		report_failed(&fresh, sk, -result);
}

#endif
