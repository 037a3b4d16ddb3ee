"""Builds `pytracecon._ring`: the walk over a mapped BPF ring buffer, in C, and the way from records to JSON lines.

Python has no acquire and release ordering, and on arm64 a ring cannot be read without. The records are copied out as
they are, many in one call. `json_lines.c` writes what JSON most of them make; all else is Python's. `confined.c` is
the child in which uretprobes are tried: between fork() and exit no Python may run. `quiet.c` holds back what libbpf
says and nobody wants to know, `kernel_types.c` the types of the kernel that no program asks for.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent

ffibuilder = FFI()

ffibuilder.cdef(
    """
    typedef struct {
        unsigned long *consumer;
        unsigned long *producer;
        unsigned char *data;
        unsigned long mask;
        uint32_t *lost;
        uint32_t cpus;
    } ring;

    typedef struct {
        size_t bytes;
        size_t records;
        size_t names;
        uint32_t lost;
        uint64_t last;
    } batch;

    void ring_take(ring *r, void *out, size_t room, batch *b);
    size_t ring_unread(ring *r);

    typedef struct {
        uint8_t size;
        char text[63];
    } word;

    typedef struct {
        const word *words;
        uint32_t count;
    } table;

    typedef struct { ...; } holder;

    typedef struct {
        table kinds, protocols, directions, owners, ends, states, errors;
        size_t read;
        size_t records;
        size_t written;
        int strange;
        uint32_t left;
        const uint8_t *named;
        holder *holders;
        char *pieces;
        ...;
    } json;

    size_t holders_size(void);
    size_t pieces_size(void);
    void holders_forget(json *j);
    void holder_add(json *j, uint64_t process, uint64_t cgroup, const char *piece, size_t size);

    void json_lines(json *j, const void *records, size_t size, int64_t offset, char *out, size_t room);
    uint32_t address_bit(const char *address);

    typedef struct {
        int pid;
        int go;
    } confined;

    confined confined_start(void);
    int confined_end(confined child);
    uintptr_t confined_target(void);

    uintptr_t quiet_before(uintptr_t print);
    void quiet_let_through(int details);

    int few_types(const unsigned char *kernel, size_t kernel_size, const unsigned char *image, size_t image_size,
                  int out);
    """
)

ffibuilder.set_source(
    "pytracecon._ring",
    r"""
    #include <elf.h>
    #include <errno.h>
    #include <fcntl.h>
    #include <stdarg.h>
    #include <stddef.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/prctl.h>
    #include <sys/resource.h>
    #include <sys/syscall.h>
    #include <sys/wait.h>
    #include <time.h>
    #include <unistd.h>
    #include <linux/btf.h>
    #include <linux/filter.h>
    #include <linux/seccomp.h>
    #include <linux/types.h>
    #include "events.h"

    /* The first eight bytes of a record in the ring, from linux/bpf.h. */
    #define BUSY (1U << 31)
    #define DISCARDED (1U << 30)
    #define RING_HEADER 8

    typedef struct {
        unsigned long *consumer;
        unsigned long *producer;
        unsigned char *data;      /* mapped twice in a row: no record is ever split */
        unsigned long mask;
        uint32_t *lost;           /* what each CPU said last of its losses */
        uint32_t cpus;
    } ring;

    typedef struct {
        size_t bytes;
        size_t records;
        size_t names;             /* records that are no events */
        uint32_t lost;            /* records missing before the first one of this batch */
        uint64_t last;            /* when the last of them was made */
    } batch;

    /* Copies whole records into `out` until there are no more, no more fit, or a loss lies between two of them. */
    static void ring_take(ring *r, void *out, size_t room, batch *b)
    {
        /* Only this side writes the consumer's position; the producer's is read after what it covers was written. */
        unsigned long at = *r->consumer;
        unsigned long end = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE);

        b->bytes = 0;
        b->records = 0;
        b->names = 0;
        b->lost = 0;
        while (at < end) {
            uint32_t *place = (uint32_t *)(r->data + (at & r->mask));
            /* Acquire: the kernel clears BUSY after it wrote the record. */
            uint32_t length = __atomic_load_n(place, __ATOMIC_ACQUIRE);
            uint32_t size = length & ~(BUSY | DISCARDED);

            if (length & BUSY)
                break;
            if (!(length & DISCARDED)) {
                const struct header *head = (const struct header *)((unsigned char *)place + RING_HEADER);

                if (size > room - b->bytes)
                    break;
                /* Signed: a loss that the reader found in the counters may be newer than this record. */
                int32_t more = head->cpu < r->cpus ? (int32_t)(head->lost - r->lost[head->cpu]) : 0;
                if (more > 0) {
                    if (b->records)
                        break;
                    b->lost += more;
                    r->lost[head->cpu] = head->lost;
                }
                memcpy((unsigned char *)out + b->bytes, head, size);
                b->bytes += size;
                b->last = head->time;
                b->records++;
                b->names += head->kind >= KIND_LOOKUP;
            }
            at += (RING_HEADER + size + 7) & ~7UL;
            /* Release: the kernel may overwrite the record only after it was copied. */
            __atomic_store_n(r->consumer, at, __ATOMIC_RELEASE);
        }
    }

    static size_t ring_unread(ring *r)
    {
        return __atomic_load_n(r->producer, __ATOMIC_ACQUIRE) - *r->consumer;
    }
    """
    + (HERE / "json_lines.c").read_text(encoding="utf-8")
    + (HERE / "confined.c").read_text(encoding="utf-8")
    + (HERE / "quiet.c").read_text(encoding="utf-8")
    + (HERE / "kernel_types.c").read_text(encoding="utf-8"),
    include_dirs=[str(HERE.parent / "bpf")],
    extra_compile_args=["-O2"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
