// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Both contracts with user space, where it can find them in the object: the settings, and the shape of every record. */
#include "compat.bpf.h"
#include "events.h"
#include "settings.h"

/* Alone in a section of its own: user space overwrites all of it before the programs are loaded. */
const volatile struct settings settings SEC(".rodata.settings");

/* BTF keeps a type that a function takes. This one is called by nobody, so libbpf leaves it out of the programs. */
union wire {
	struct connect_event connect;
	struct established_event established;
	struct failed_event failed;
	struct accept_event accept;
	struct close_event close;
	struct existing_event existing;
	struct state_event state_event;
	struct retransmit_event retransmit;
	struct reset_event reset;
	struct flow_event flow;
	struct beginning_event beginning;
	struct lookup_event lookup;
	struct message_event message;
	struct hello_event hello;
	struct program_event program;
	struct image_event image;
	struct process_event process;
	struct group_event group;
	struct translation_event translation;
	struct row row;
	struct counters counters;
	struct shared shared;
	enum kind kind;
	enum protocol protocol;
	enum direction direction;
	enum owner_source owner;
	enum conn_flags flags;
	enum ended ended;
	enum app app;
	enum segment segment;
	enum translation translation_kind;
	enum name_flags name_flags;
	enum resolver resolver;
	enum resolver_function resolver_function;
	enum tcp_states state;
	enum row_known row_known;
	enum filter_bits bits;
	enum resting resting;
	enum attempt_hook attempt_hook;
};

__attribute__((used)) static int wire_contract(const union wire *wire)
{
	return 0;
}

SEC("license")
char LICENSE[] = "Dual MIT/GPL";
