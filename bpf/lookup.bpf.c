// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The resolvers of a libc: getaddrinfo, and the family of gethostbyname. What is asked is read at the call, what is
 * answered at the return, both from the process's own memory: it may lie, and only its own connections believe it.
 *
 * libcs call these functions from one another. The outermost call is the one that is told.
 */
#define TELLS_INLINE
#include "asker.bpf.h"

/* As a 64-bit libc lays them out, glibc and musl alike: POSIX fixes the members, the ABI their order. */
struct addrinfo_64 {
	__s32 flags, family, socktype, protocol;
	__u32 addrlen, padding;
	__u64 addr, canonname, next;
};

struct hostent_64 {
	__u64 name, aliases;
	__s32 addrtype, length;
	__u64 addr_list;
};

struct any_sockaddr {
	__u16 family;
	__u16 port;
	__u32 v4; /* or the flow label */
	__u8 v6[16];
};

/* Of nodes that one run looks at: getaddrinfo lists an address once for each type of socket. */
#define STEPS 16
#define PARTS 32 /* as often as the kernel lets a program call another */

#define NO_PROGRAM 1

/* The program at the return itself, which goes on there with the next record of an answer: verified once, not for each. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next_parts SEC(".maps");

static __always_inline int enter(struct pt_regs *regs, __u32 resolver, __u64 result_at, __u64 h_errno_at)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 key = bpf_get_current_pid_tgid();
	struct libc_call *outer = bpf_map_lookup_elem(&libc_calls, &key);
	struct libc_call call = {.stack = PT_REGS_SP(regs), .name_at = USER_ARG_1(regs)};
	struct asker asker = {};

	/* Below the frame of the outer call, or in its place (a tail call hands on the same name). */
	if (outer && (call.stack < outer->stack || (call.stack == outer->stack && call.name_at == outer->name_at))) {
		if (h_errno_at && !outer->h_errno_at)
			outer->h_errno_at = h_errno_at;
		return 0;
	}
	/* Read at the return as well: here only if somebody may be left out. */
	if (on(BY_OWNER | BY_NETNS)) {
		take_asker(&asker, task);
		if (!asker_wanted(&asker, task))
			return 0;
	}
	call.resolver = resolver;
	call.result_at = result_at;
	call.h_errno_at = h_errno_at;
	call.number = next_id(task);
	call.length = bpf_probe_read_user_str(call.name, NAME_SIZE + 1, (void *)call.name_at);
	call.since = bpf_ktime_get_ns();
	bpf_map_update_elem(&libc_calls, &key, &call, BPF_ANY);
	/*
	 * There is no such program, so nothing is called. But since a76ab5731e32 (v6.13) a kprobe program gets a stack for
	 * each CPU, and whoever preempts it in a uprobe writes on that (seen on 7.2: one process's name in another one's
	 * call); a program with a tail call keeps to the task's own.
	 */
	bpf_tail_call(regs, &next_parts, NO_PROGRAM);
	return 0;
}

static __always_inline bool take_sockaddr(__u8 *to, __u64 from)
{
	struct any_sockaddr addr = {};

	if (bpf_probe_read_user(&addr, 8, (void *)from))
		return false;
	if (addr.family == AF_INET) {
		put_v4(to, addr.v4);
		return true;
	}
	return addr.family == AF_INET6 && !bpf_probe_read_user(to, 16, (void *)(from + 8));
}

/*
 * What the loops below know stands in the record all the time: the verifier knows nothing of it there, so one step is to
 * it like another, whatever was found. There is one for each kind of answer, as it walks every way through a loop again
 * and again.
 */
static __always_inline __u8 *next_place(struct lookup_event *event)
{
	return event->addresses[*(volatile __u8 *)&event->count & (ADDRESSES - 1)];
}

/* Keeps what was put in the next place, unless it is the address before; whether there is room for another. */
static __always_inline bool keep(struct lookup_event *event)
{
	volatile __u8 *count = &event->count;
	const __u64 *one = (const __u64 *)next_place(event);
	const __u64 *other = (const __u64 *)event->addresses[(*count - 1) & (ADDRESSES - 1)];
	__u64 differs = (one[0] ^ other[0]) | (one[1] ^ other[1]);

	barrier_var(differs);
	if (!differs)
		return true;
	return ++*count < ADDRESSES;
}

/* From getaddrinfo's list. The cursor is 0 at the end. */
static __always_inline void take_addrinfos(struct lookup_event *event, struct libc_call *call)
{
	struct addrinfo_64 node;
	int step;

	for (step = 0; step < STEPS && call->cursor; step++) {
		if (bpf_probe_read_user(&node, sizeof(node), (void *)call->cursor)) {
			call->cursor = 0;
			break;
		}
		call->cursor = node.next;
		if (take_sockaddr(next_place(event), node.addr) && !keep(event))
			break;
	}
}

/* From the addresses of a struct hostent. */
static __always_inline void take_hosts(struct lookup_event *event, struct libc_call *call)
{
	__u64 place;
	__u32 v4;
	int step;

	for (step = 0; step < STEPS && call->cursor; step++) {
		if (bpf_probe_read_user(&place, sizeof(place), (void *)call->cursor) || !place) {
			call->cursor = 0;
			break;
		}
		call->cursor += sizeof(place);
		if (call->family == AF_INET6) {
			if (bpf_probe_read_user(next_place(event), 16, (void *)place))
				continue;
		} else {
			if (bpf_probe_read_user(&v4, sizeof(v4), (void *)place))
				continue;
			put_v4(next_place(event), v4);
		}
		if (!keep(event))
			break;
	}
}

/* One record; whether another has to follow. */
static __always_inline bool report_part(struct libc_call *call)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 process = known_process(task, bpf_get_current_pid_tgid() >> 32, born(task));
	struct lookup_event *event = reserve_record(sizeof(*event), KIND_LOOKUP);
	bool goes_on;

	if (!event)
		return false;
	take_asker(&event->asker, task);
	event->asker.process = process;
	event->call = call->number;
	event->latency = call->returned - call->since;
	event->code = call->code;
	event->resolver = call->resolver;
	event->flags = NAME_WANTED;
	if (call->length < 0)
		event->flags |= NAME_UNREAD;
	else if (call->length > NAME_SIZE)
		event->flags |= NAME_CUT;
	event->reserved = 0;
	__builtin_memcpy(event->name, call->name, sizeof(event->name));
	event->count = 0;
	/* What the first address is compared with. */
	__builtin_memset(event->addresses[ADDRESSES - 1], 0, sizeof(event->addresses[0]));
	if (call->resolver == RESOLVER_GETADDRINFO)
		take_addrinfos(event, call);
	else
		take_hosts(event, call);
	goes_on = call->cursor && call->parts < PARTS;
	if (call->cursor)
		event->flags |= goes_on ? NAME_MORE : NAME_LEFT_OUT;
	submit(event);
	return goes_on;
}

SEC("uprobe/getaddrinfo")
int getaddrinfo_enter(struct pt_regs *regs)
{
	return enter(regs, RESOLVER_GETADDRINFO, USER_ARG_4(regs), 0);
}

SEC("uprobe/gethostbyname")
int gethostbyname_enter(struct pt_regs *regs)
{
	return enter(regs, RESOLVER_GETHOSTBYNAME, 0, 0);
}

SEC("uprobe/gethostbyname_r")
int gethostbyname_r_enter(struct pt_regs *regs)
{
	return enter(regs, RESOLVER_GETHOSTBYNAME, USER_ARG_5(regs), USER_ARG_6(regs));
}

SEC("uprobe/gethostbyname2_r")
int gethostbyname2_r_enter(struct pt_regs *regs)
{
	return enter(regs, RESOLVER_GETHOSTBYNAME, USER_ARG_6(regs), user_arg_7(regs));
}

/* Where the answer is, and whether there is one. */
static __always_inline void take_result(struct libc_call *call, __u64 returned)
{
	struct hostent_64 host = {};
	__u64 answer = returned;

	call->cursor = 0;
	if (call->resolver == RESOLVER_GETADDRINFO) {
		call->code = returned;
		if (!call->code)
			bpf_probe_read_user(&call->cursor, sizeof(call->cursor), (void *)call->result_at);
		return;
	}
	if (call->result_at)
		bpf_probe_read_user(&answer, sizeof(answer), (void *)call->result_at);
	call->code = H_ERRNO_UNKNOWN;
	if (answer && !bpf_probe_read_user(&host, sizeof(host), (void *)answer)) {
		call->code = 0;
		call->family = host.addrtype;
		call->cursor = host.addr_list;
	} else if (call->h_errno_at) {
		bpf_probe_read_user(&call->code, sizeof(call->code), (void *)call->h_errno_at);
	}
}

static __always_inline int leave(struct pt_regs *regs)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct libc_call *call = bpf_map_lookup_elem(&libc_calls, &key);

	/* A call from inside the outermost one leaves the stack below its frame. */
	if (!call || PT_REGS_SP(regs) < call->stack + RETURN_ADDRESS)
		return 0;
	if (!call->parts) {
		call->returned = bpf_ktime_get_ns();
		take_result(call, PT_REGS_RC(regs));
		/* The page of a name that nobody had touched before could not be read at the call. */
		if (call->length < 0)
			call->length = bpf_probe_read_user_str(call->name, NAME_SIZE + 1, (void *)call->name_at);
	}
	call->parts++;
	if (report_part(call))
		bpf_tail_call(regs, &next_parts, 0);
	bpf_map_delete_elem(&libc_calls, &key);
	return 0;
}

SEC("uretprobe/resolver")
int resolver_return(struct pt_regs *regs)
{
	return leave(regs);
}

/*
 * The same where one link takes many places (89ae89f53d20, v6.6): attached in one go, and gone in one, while each
 * perf event waits for RCU when it goes. The cookie tells which function it is.
 */
SEC("uprobe/multi")
int resolver_enter_multi(struct pt_regs *regs)
{
	switch (bpf_get_attach_cookie(regs)) {
	case FUNCTION_GETADDRINFO:
		return enter(regs, RESOLVER_GETADDRINFO, USER_ARG_4(regs), 0);
	case FUNCTION_GETHOSTBYNAME_R:
		return enter(regs, RESOLVER_GETHOSTBYNAME, USER_ARG_5(regs), USER_ARG_6(regs));
	case FUNCTION_GETHOSTBYNAME2_R:
		return enter(regs, RESOLVER_GETHOSTBYNAME, USER_ARG_6(regs), user_arg_7(regs));
	default:
		return enter(regs, RESOLVER_GETHOSTBYNAME, 0, 0);
	}
}

SEC("uprobe/multi")
int resolver_return_multi(struct pt_regs *regs)
{
	return leave(regs);
}
