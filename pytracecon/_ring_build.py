"""Builds `pytracecon._ring`: the walk over a mapped BPF ring buffer, in C, and the way from records to JSON lines.

Python has no acquire and release ordering, and on arm64 a ring cannot be read without. `ring.c` copies the records out
as they are, many in one call, and may sort them by kind on the way. `json_lines.c` writes what JSON most of them make;
all else is Python's. `confined.c` is the child in which uretprobes are tried: between fork() and exit no Python may
run. `misses.c` asks programs how often they were skipped,
`quiet.c` holds back what libbpf says and nobody wants to know, `kernel_types.c` the types of the kernel that no
program asks for.
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
        uint64_t first;
        uint64_t last;
        uint32_t more;
        uint32_t busy;
    } batch;

    typedef struct {
        unsigned char *data;
        size_t room;
        size_t size;
        size_t bytes;
    } heap;

    bool ring_take(ring *r, void *out, size_t room, batch *b);
    bool ring_sort(ring *r, void *out, size_t room, heap *heaps, size_t count, int64_t offset, batch *b);
    void gather(const void *from, size_t stride, size_t size, size_t count, void *to);
    int64_t ring_unread(ring *r);

    typedef struct {
        uint8_t size;
        char text[63];
    } word;

    typedef struct {
        const word *words;
        uint32_t count;
    } table;

    typedef struct { ...; } pieces;

    typedef struct {
        table kinds, protocols, directions, owners, ends, states, errors;
        size_t read;
        size_t records;
        size_t written;
        int strange;
        uint32_t left;
        const uint8_t *named;
        pieces *of_owners;
        ...;
    } json;

    void pieces_forget(pieces *all);
    void piece_add(pieces *all, uint64_t process, uint64_t cgroup, const char *text, size_t size);

    void json_lines(json *j, const void *records, size_t size, int64_t offset, char *out, size_t room);
    uint32_t address_bit(const char *address);

    typedef struct {
        int pid;
        int go;
        unsigned char *returned;
    } confined;

    int confined_needed(void);
    confined confined_start(void);
    int confined_end(confined child);
    uintptr_t confined_target(void);

    uintptr_t quiet_before(uintptr_t print);
    void quiet_let_through(int details);

    int64_t sum_of_infos(const int *programs, size_t count, size_t word);

    int few_types(const unsigned char *kernel, size_t kernel_size, const unsigned char *image, size_t image_size,
                  int out);
    int few_types_of(const char *path, const unsigned char *image, size_t image_size, int out);
    """
)

ffibuilder.set_source(
    "pytracecon._ring",
    r"""
    #include <elf.h>
    #include <errno.h>
    #include <fcntl.h>
    #include <signal.h>
    #include <stdarg.h>
    #include <stdbool.h>
    #include <stddef.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/prctl.h>
    #include <sys/resource.h>
    #include <sys/socket.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <sys/wait.h>
    #include <time.h>
    #include <unistd.h>
    #include <linux/btf.h>
    #include <linux/filter.h>
    #include <linux/seccomp.h>
    #include <linux/types.h>
    #include "events.h"
    """
    + (HERE / "ring.c").read_text(encoding="utf-8")
    + (HERE / "json_lines.c").read_text(encoding="utf-8")
    + (HERE / "confined.c").read_text(encoding="utf-8")
    + (HERE / "misses.c").read_text(encoding="utf-8")
    + (HERE / "quiet.c").read_text(encoding="utf-8")
    + (HERE / "kernel_types.c").read_text(encoding="utf-8"),
    include_dirs=[str(HERE.parent / "bpf"), str(HERE)],
    extra_compile_args=["-O2"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
