/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* A connection that a process holds and of which no hook told. */
#ifndef PYTRACECON_FOUND_BPF_H
#define PYTRACECON_FOUND_BPF_H

#include "totals.bpf.h"

/* Fills a fresh entry; false if it is not wanted. The flag says why no hook told: CONN_PRE_EXISTING or CONN_PARTIAL. */
static __always_inline bool begin_found(struct sock_state *fresh, const struct sock *sk, struct task_struct *task,
					__u8 protocol, int tcp_state, __u8 flag)
{
	begin(fresh, sk, protocol, tcp_state == STATE_SYN_SENT ? DIRECTION_OUT : direction_of(sk, protocol, tcp_state));
	fresh->conn.flags |= flag;
	fresh->phase = PHASE_MATCHED;
	if (tcp_state == STATE_SYN_SENT)
		fresh->phase |= PHASE_ATTEMPT | PHASE_SYN_LEFT;
	else if (fresh->conn.direction == DIRECTION_IN)
		fresh->phase |= PHASE_ACCEPTED;
	if (tcp_state == STATE_CLOSE_WAIT || tcp_state == STATE_LAST_ACK)
		fresh->phase |= PHASE_REMOTE_FIRST;
	if (tcp_state == STATE_FIN_WAIT1 || tcp_state == STATE_FIN_WAIT2 || tcp_state == STATE_CLOSING)
		fresh->phase |= PHASE_LOCAL_FIRST;
	return !settings.min_latency && tuple_wanted(&fresh->conn) && take_owner(&fresh->conn, task, OWNER_EXISTING);
}

/* It closed meanwhile: nothing else would ever remove the entry. */
static __always_inline void forget_if_closed(const struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_state) == STATE_CLOSE)
		forget(sk);
}

#endif
