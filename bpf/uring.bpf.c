// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * io_uring passes no system call for each of its operations. Where no function can be probed, its completions tell of
 * accepts, and of attempts that ended before a SYN left.
 */
#define CURRENT_TASK
#include "accept.bpf.h"
#include "attempt.bpf.h"
#include "file.bpf.h"

#define OPERATION_CONNECT 16 /* IORING_OP_CONNECT, linux/io_uring.h */

static __always_inline void on_connect_completion(const struct io_kiocb *request, long result)
{
	const struct sock *sk = sock_of_file(BPF_CORE_READ(request, file));
	struct syscall_attempt *found, attempt;
	__u64 key = (__u64)sk;

	if (!sk)
		return;
	found = bpf_map_lookup_elem(&uring_attempts, &key);
	if (!found)
		return;
	attempt = *found;
	bpf_map_delete_elem(&uring_attempts, &key);
	on_connect_exit(sk, &attempt, result);
}

/*
 * A multishot accept completes without a request, with a number only: that is an accept if it is the descriptor of an
 * inbound connection that nobody has taken yet.
 */
static __always_inline int on_completion(const struct io_kiocb *request, long result)
{
	struct sock_state *state;
	const struct sock *sk;

	if (request && BPF_CORE_READ(request, opcode) == OPERATION_CONNECT) {
		on_connect_completion(request, result);
		return 0;
	}
	sk = result < 0 ? NULL : sock_of_fd(result);
	state = sk ? state_of(sk) : NULL;
	if (!state || state->phase & PHASE_ACCEPTED || state->conn.direction != DIRECTION_IN)
		return 0;
	return on_accept(sk);
}

/* Three shapes of the tracepoint; the verifier takes one of them. Since 2946f08ae9ed (v6.13): the completion entry. */
SEC("tp_btf/io_uring_complete")
int BPF_PROG(uring_entry, void *ring_context, struct io_kiocb *request, struct io_uring_cqe *entry)
{
	return on_completion(request, entry->res);
}

/*
 * Since 502c87d65564 (v5.18): context, request, user data, result, flags. The fifth argument is read only because the
 * older shape has four, and would be taken for this one.
 */
SEC("tp_btf/io_uring_complete")
int BPF_PROG(uring_result, void *ring_context, struct io_kiocb *request, __u64 user_data, int result,
	     unsigned int flags)
{
	barrier_var(flags);
	return on_completion(request, result);
}

/* Before: context, user data, result. */
SEC("tp_btf/io_uring_complete")
int BPF_PROG(uring_result_early, void *ring_context, __u64 user_data, int result)
{
	return on_completion(NULL, result);
}
