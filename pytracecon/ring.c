/* The walk over a BPF ring buffer that is mapped into memory: the consumer's side. */

/* The first eight bytes of a record in the ring, from linux/bpf.h. */
#define BUSY (1U << 31)
#define DISCARDED (1U << 30)
#define RING_HEADER 8

/* What lies ahead is asked for in blocks of four pages, a line of each page in turn: see `ask`. */
#define LINE 64UL
#define PAGE 4096UL
#define PAGES 4UL
#define BLOCK (PAGES * PAGE)
#define AHEAD (2 * BLOCK)
#define LINES_A_RECORD 8

typedef struct {
	unsigned long *consumer;
	unsigned long *producer;
	unsigned char *data; /* mapped twice in a row: no record is ever split */
	unsigned long mask;
	uint32_t *lost; /* what each CPU said last of its losses */
	uint32_t cpus;
} ring;

typedef struct {
	size_t bytes;
	size_t records;
	size_t names;   /* records that are no events */
	uint32_t lost;  /* records missing before the first one of this batch */
	uint64_t first; /* when the first of them was made, and the last */
	uint64_t last;
} batch;

/* Where records of one kind go. The first of several takes those that have no other, of any size. */
typedef struct {
	unsigned char *data;
	size_t room;
	size_t size; /* of each record; 0: there are none here */
	size_t bytes;
} heap;

/*
 * Records lie in a cache that is far, or in memory: one word of each line, in their order, takes 17 ns a record. A CPU
 * fetches by itself what it will be asked for next, but up to the end of a page only. With four pages on the way at a
 * time it fetches of all of them, which takes 12. `asked` counts lines up to `AHEAD` from `at`, a few more each time;
 * none is asked for that the kernel may be writing to. Always inline: gcc sees no effect, and left out the calls.
 */
static inline __attribute__((always_inline)) unsigned long ask(const ring *r, unsigned long asked, unsigned long at,
							       unsigned long end)
{
	for (int i = 0; i < LINES_A_RECORD && asked < at + AHEAD; i++, asked += LINE) {
		unsigned long nth = asked % BLOCK / LINE;
		unsigned long line = asked - asked % BLOCK + nth % PAGES * PAGE + nth / PAGES * LINE;

		if (line < end)
			__builtin_prefetch(r->data + (line & r->mask), 0, 2);
	}
	return asked;
}

/* Release: the kernel may overwrite records only after they were copied. */
static inline void give_back(ring *r, unsigned long at)
{
	__atomic_store_n(r->consumer, at, __ATOMIC_RELEASE);
}

/* Copies whole records onto the heaps until there are no more, one is full, or a loss lies between two of them. */
static inline void walk(ring *r, heap *heaps, size_t count, int64_t offset, batch *b)
{
	/* Only this side writes the consumer's position; the producer's is read after what it covers was written. */
	unsigned long at = *r->consumer;
	unsigned long end = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE);
	unsigned long told = at, asked = at & ~(LINE - 1);

	*b = (batch){0};
	for (size_t i = 0; i < count; i++)
		heaps[i].bytes = 0;
	while (at < end) {
		uint32_t *place = (uint32_t *)(r->data + (at & r->mask));
		/* Acquire: the kernel clears BUSY after it wrote the record. */
		uint32_t length = __atomic_load_n(place, __ATOMIC_ACQUIRE);
		uint32_t size = length & ~(BUSY | DISCARDED);

		asked = ask(r, asked, at, end);
		if (length & BUSY)
			break;
		if (!(length & DISCARDED)) {
			const struct header *head = (const struct header *)((unsigned char *)place + RING_HEADER);
			heap *to = head->kind < count && heaps[head->kind].size == size ? &heaps[head->kind] : heaps;
			unsigned char *out = to->data + to->bytes;

			if (size > to->room - to->bytes)
				break;
			/* Signed: a loss that the reader found in the counters may be newer than this record. */
			int32_t more = head->cpu < r->cpus ? (int32_t)(head->lost - r->lost[head->cpu]) : 0;
			if (more > 0) {
				if (b->records)
					break;
				b->lost += more;
				r->lost[head->cpu] = head->lost;
			}
			memcpy(out, head, size);
			if (to != heaps)
				((struct header *)out)->time += offset;
			to->bytes += size;
			if (!b->records)
				b->first = head->time;
			b->last = head->time;
			b->records++;
			b->names += head->kind >= KIND_LOOKUP;
		}
		at += (RING_HEADER + size + 7) & ~7UL;
		/* A sixty-fourth of the ring at a time: each CPU that writes a record looks at this position. */
		if (at - told > r->mask >> 6) {
			give_back(r, at);
			told = at;
		}
	}
	give_back(r, at);
}

/* All of them onto one, in their order. */
static void ring_take(ring *r, void *out, size_t room, batch *b)
{
	heap all = {.data = out, .room = room};

	walk(r, &all, 1, 0, b);
	b->bytes = all.bytes;
}

/* A heap for each kind. Those there are get the time that others go by: `offset` leads to it from the kernel's. */
static void ring_sort(ring *r, heap *heaps, size_t count, int64_t offset, batch *b)
{
	walk(r, heaps, count, offset, b);
}

static size_t ring_unread(ring *r)
{
	return __atomic_load_n(r->producer, __ATOMIC_ACQUIRE) - *r->consumer;
}

/* A member of each of so many records, one behind the other. */
static void gather(const void *from, size_t stride, size_t size, size_t count, void *to)
{
	for (size_t i = 0; i < count; i++)
		memcpy((char *)to + i * size, (const char *)from + i * stride, size);
}
