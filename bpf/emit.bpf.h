/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* The way of a record into the ring, and what is counted on it. */
#ifndef PYTRACECON_EMIT_BPF_H
#define PYTRACECON_EMIT_BPF_H

#include "state.bpf.h"

#define MAX_CPUS 1024

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} ring __weak SEC(".maps");

/*
 * An array that user space maps, one slot a CPU, and not a per-CPU map: reading it costs no system call. All
 * additions are atomic, because a softirq may interrupt a program of the same CPU.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_CPUS);
	__type(key, __u32);
	__type(value, struct counters);
} counters __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct shared);
} shared __weak SEC(".maps");

static __always_inline struct shared *shared_page(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&shared, &zero);
}

static __always_inline struct counters *own_counters(void)
{
	__u32 cpu = bpf_get_smp_processor_id() & (MAX_CPUS - 1);

	return bpf_map_lookup_elem(&counters, &cpu);
}

/*
 * Sequence, CPU and some bits of the address. The address is there for the one case in which the sequence alone
 * is not enough: a softirq that takes a number between the two instructions below, which 5.10 cannot do in one.
 */
static __always_inline __u64 next_id(const void *sk)
{
	struct counters *slot = own_counters();
	__u64 address = number_of(sk);

	if (!slot)
		return 0;
	__sync_fetch_and_add(&slot->ids, 1);
	return *(volatile __u64 *)&slot->ids << 24 | (__u64)(bpf_get_smp_processor_id() & 0xfff) << 12 |
	       (address >> 6 & 0xfff);
}

static __always_inline void count_forgotten(void)
{
	struct counters *slot = own_counters();
	struct shared *page = shared_page();

	if (!slot || !page)
		return;
	page->forgot = 1;
	__sync_fetch_and_add(&slot->lost_map, 1);
	slot->lost_map_at = bpf_ktime_get_ns();
}

static __always_inline void count_unseen(void)
{
	struct counters *slot = own_counters();

	if (!slot)
		return;
	__sync_fetch_and_add(&slot->unseen, 1);
	slot->unseen_at = bpf_ktime_get_ns();
}

static __always_inline void count_stood_in(void)
{
	struct counters *slot = own_counters();

	if (slot)
		__sync_fetch_and_add(&slot->stood_in, 1);
}

static __always_inline bool anything_forgotten(void)
{
	struct shared *page = shared_page();

	return page && page->forgot;
}

static __always_inline bool wanted(__u8 kind)
{
	return settings.kinds & 1U << kind;
}

/* Of a record that did not find room. */
static __always_inline void count_full(struct counters *slot, __u8 kind)
{
	if (kind >= KIND_LOOKUP) {
		__sync_fetch_and_add(&slot->lost_names, 1);
		slot->lost_names_at = bpf_ktime_get_ns();
	} else {
		__sync_fetch_and_add(&slot->lost_ring, 1);
		slot->lost_ring_at = bpf_ktime_get_ns();
	}
}

static __always_inline void begin_record(struct header *record, const struct counters *slot, __u64 size, __u8 kind,
					 __u64 time)
{
	record->time = time;
	record->lost = slot->lost_ring;
	record->cpu = bpf_get_smp_processor_id();
	record->kind = kind;
	record->words = size / 8;
}

/* `time` is when it happened; 0: now. */
static __always_inline void *reserve_record_at(__u64 size, __u8 kind, __u64 time)
{
	struct counters *slot = own_counters();
	struct header *record;

	if (!slot)
		return NULL;
	if (kind < KIND_LOOKUP)
		__sync_fetch_and_add(&slot->wanted, 1);
	record = bpf_ringbuf_reserve(&ring, size, 0);
	if (!record) {
		count_full(slot, kind);
		return NULL;
	}
	begin_record(record, slot, size, kind, time ? time : bpf_ktime_get_ns());
	return record;
}

static __always_inline void *reserve_record(__u64 size, __u8 kind)
{
	return reserve_record_at(size, kind, 0);
}

static __always_inline void *reserve_at(__u64 size, __u8 kind, const struct conn *conn, __u64 time)
{
	struct connect_event *record = reserve_record_at(size, kind, time);

	if (record)
		record->conn = *conn;
	return record;
}

static __always_inline void *reserve(__u64 size, __u8 kind, const struct conn *conn)
{
	return reserve_at(size, kind, conn, 0);
}

/* The reader is woken when it sleeps, or when it naps and much is waiting; never for each record. */
static __always_inline __u64 wakeup(void)
{
	struct shared *page = shared_page();
	__u32 resting;

	if (!page)
		return BPF_RB_NO_WAKEUP;
	resting = *(volatile __u32 *)&page->resting;
	if (resting == READER_ASLEEP ||
	    (resting == READER_NAPS && bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) >= settings.wake_bytes)) {
		page->resting = READER_AWAKE;
		return BPF_RB_FORCE_WAKEUP;
	}
	return BPF_RB_NO_WAKEUP;
}

static __always_inline void submit(void *record)
{
	bpf_ringbuf_submit(record, wakeup());
}

/* A record of another kind than the events, whose size is not known when this is compiled; a multiple of eight. */
static __always_inline void output(struct header *record, __u64 size, __u8 kind)
{
	struct counters *slot = own_counters();

	if (!slot)
		return;
	begin_record(record, slot, size, kind, bpf_ktime_get_ns());
	if (bpf_ringbuf_output(&ring, record, size, wakeup()))
		count_full(slot, kind);
}

#endif
