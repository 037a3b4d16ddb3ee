/* The walk over a BPF ring buffer that is mapped into memory: the consumer's side. */

/* The first eight bytes of a record in the ring, from linux/bpf.h. */
#define BUSY (1U << 31)
#define DISCARDED (1U << 30)
#define RING_HEADER 8

/* What lies ahead is asked for in blocks of four pages, a line of each page at a time: see `ask`. */
#define LINE 64UL
#define PAGE 4096UL
#define PAGES 4UL
#define BLOCK (PAGES * PAGE)
#define AHEAD (2 * BLOCK)
#define LINES_A_PAGE (PAGE / LINE)

#define COMMON 128 /* bytes that every event has: see `copy` */
#define PIECE 16

typedef struct {
	unsigned long *consumer; /* NULL once the pages are unmapped: nothing is read then */
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
	uint32_t more; /* there is more to take: no room was left, or a loss lies before it */
	uint32_t busy; /* … or will be: the next record is still being written */
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
 * time it fetches of all of them, which takes 12. Here those four lines are asked for whose turn it is at this position:
 * none where the kernel may be writing, so not the last block either. With the same few instructions at each record
 * no branch goes another way than the one before. Always inline: gcc sees no effect, and left out the calls.
 */
static inline __attribute__((always_inline)) void ask(const ring *r, unsigned long at, unsigned long end)
{
	unsigned long turn = at / (PAGES * LINE);
	unsigned long line = turn / LINES_A_PAGE * BLOCK + turn % LINES_A_PAGE * LINE;

	if (line + BLOCK < end) {
		const unsigned char *first = r->data + (line & r->mask);

		for (unsigned long page = 0; page < PAGES; page++)
			__builtin_prefetch(first + page * PAGE, 0, 2);
	}
}

/* Events have 144 to 200 bytes: memcpy() spends as long on finding out how to copy so few as on copying them. */
static inline __attribute__((always_inline)) void copy(unsigned char *to, const unsigned char *from, size_t size)
{
	if (size < COMMON || size > 2 * COMMON) {
		memcpy(to, from, size);
		return;
	}
	memcpy(to, from, COMMON);
	for (size_t done = COMMON; done + PIECE < size; done += PIECE)
		memcpy(to + done, from + done, PIECE);
	memcpy(to + size - PIECE, from + size - PIECE, PIECE); /* some of it again: any size will do */
}

/* Release: the kernel may overwrite records only after they were copied. */
static inline void give_back(const ring *r, unsigned long at)
{
	__atomic_store_n(r->consumer, at, __ATOMIC_RELEASE);
}

/*
 * Copies whole records onto the heaps until there are no more, one is full, or a loss lies between two of them. What is
 * used at each record is in variables of its own, which no copy can change: so the compiler may keep them in registers.
 */
static inline void walk(ring *ring_, heap *heaps, size_t count, int64_t offset, batch *b)
{
	const ring r = *ring_;
	batch found = {0};
	/* Only this side writes the consumer's position; the producer's is read after what it covers was written. */
	unsigned long at = *r.consumer;
	unsigned long end = __atomic_load_n(r.producer, __ATOMIC_ACQUIRE);
	unsigned long told = at;

	for (size_t i = 0; i < count; i++)
		heaps[i].bytes = 0;
	while (at < end) {
		uint32_t *place = (uint32_t *)(r.data + (at & r.mask));
		/* Acquire: the kernel clears BUSY after it wrote the record. */
		uint32_t length = __atomic_load_n(place, __ATOMIC_ACQUIRE);
		uint32_t size = length & ~(BUSY | DISCARDED);

		ask(&r, at + AHEAD, end);
		if (length & BUSY) {
			found.busy = 1;
			break;
		}
		if (!(length & DISCARDED)) {
			const unsigned char *record = (unsigned char *)place + RING_HEADER;
			const struct header head = *(const struct header *)record;
			heap *to = head.kind < count && heaps[head.kind].size == size ? &heaps[head.kind] : heaps;
			size_t before = to->bytes;
			unsigned char *out = to->data + before;

			if (size > to->room - before) {
				found.more = 1;
				break;
			}
			/* Signed: a loss that the reader found in the counters may be newer than this record. */
			int32_t more = head.cpu < r.cpus ? (int32_t)(head.lost - r.lost[head.cpu]) : 0;
			if (more > 0) {
				if (found.records) {
					found.more = 1;
					break;
				}
				found.lost += more;
				r.lost[head.cpu] = head.lost;
			}
			to->bytes = before + size;
			copy(out, record, size);
			if (to != heaps)
				((struct header *)out)->time = head.time + offset;
			if (!found.records)
				found.first = head.time;
			found.last = head.time;
			found.records++;
			found.names += head.kind >= KIND_LOOKUP;
		}
		at += (RING_HEADER + size + 7) & ~7UL;
		/* A sixty-fourth of the ring at a time: each CPU that writes a record looks at this position. */
		if (at - told > r.mask >> 6) {
			give_back(&r, at);
			told = at;
		}
	}
	give_back(&r, at);
	*b = found;
}

/* All of them onto one, in their order. False if the pages are gone. */
static bool ring_take(ring *r, void *out, size_t room, batch *b)
{
	heap all = {.data = out, .room = room};

	if (!r->consumer)
		return false;
	walk(r, &all, 1, 0, b);
	b->bytes = all.bytes;
	return true;
}

/*
 * A heap for each kind, and what has none into `out`, as it is; the first heap is for that. What is on the others gets
 * the time that others go by: `offset` leads to it from the kernel's.
 */
static bool ring_sort(ring *r, void *out, size_t room, heap *heaps, size_t count, int64_t offset, batch *b)
{
	if (!r->consumer)
		return false;
	heaps[0] = (heap){.data = out, .room = room};
	walk(r, heaps, count, offset, b);
	b->bytes = heaps[0].bytes;
	return true;
}

/* -1 if that cannot be said any more: positions are multiples of eight. */
static int64_t ring_unread(ring *r)
{
	if (!r->consumer)
		return -1;
	return __atomic_load_n(r->producer, __ATOMIC_ACQUIRE) - *r->consumer;
}

/* A member of each of so many records, one behind the other. */
static void gather(const void *from, size_t stride, size_t size, size_t count, void *to)
{
	for (size_t i = 0; i < count; i++)
		memcpy((char *)to + i * size, (const char *)from + i * stride, size);
}
