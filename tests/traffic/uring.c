// SPDX-License-Identifier: MIT
/* io_uring by its system calls: a ring for each operation, slow and without a library. */
#define _GNU_SOURCE
#include "traffic.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

long uring(const struct io_uring_sqe *entry)
{
	struct io_uring_params setup = {0};
	struct io_uring_sqe *entries;
	struct io_uring_cqe *outcome;
	size_t sq_size, cq_size;
	char *sq, *cq;
	long result = -1;
	int fd = syscall(SYS_io_uring_setup, 1, &setup);

	if (fd < 0)
		return -1;
	sq_size = setup.sq_off.array + setup.sq_entries * sizeof(unsigned int);
	cq_size = setup.cq_off.cqes + setup.cq_entries * sizeof(*outcome);
	sq = mmap(NULL, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQ_RING);
	cq = mmap(NULL, cq_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_CQ_RING);
	entries = mmap(NULL, sizeof(*entries) * setup.sq_entries, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
		       IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || entries == MAP_FAILED)
		goto out;

	entries[0] = *entry;
	*(unsigned int *)(sq + setup.sq_off.array) = 0;
	__atomic_store_n((unsigned int *)(sq + setup.sq_off.tail), 1, __ATOMIC_RELEASE);
	do
		result = syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0);
	while (result < 0 && errno == EINTR);
	if (result < 0 || !__atomic_load_n((unsigned int *)(cq + setup.cq_off.tail), __ATOMIC_ACQUIRE)) {
		result = -1;
		goto out;
	}
	outcome = (struct io_uring_cqe *)(cq + setup.cq_off.cqes);
	result = outcome->res;
	if (result < 0) {
		errno = -result;
		result = -1;
	}
out:
	if (sq != MAP_FAILED)
		munmap(sq, sq_size);
	if (cq != MAP_FAILED)
		munmap(cq, cq_size);
	if (entries != MAP_FAILED)
		munmap(entries, sizeof(*entries) * setup.sq_entries);
	close(fd);
	return result;
}

static struct io_uring_sqe entry(int operation, int fd, const void *data, size_t size, bool async)
{
	return (struct io_uring_sqe){
		.opcode = operation, .fd = fd, .addr = (uintptr_t)data, .len = size, .flags = async ? IOSQE_ASYNC : 0};
}

long uring_connect(int fd, const struct sockaddr *to, socklen_t size, bool async)
{
	struct io_uring_sqe connect = entry(IORING_OP_CONNECT, fd, to, 0, async);

	connect.off = size;
	return uring(&connect);
}

long uring_accept(int fd, bool async)
{
	struct io_uring_sqe accept = entry(IORING_OP_ACCEPT, fd, NULL, 0, async);

	return uring(&accept);
}

long uring_send(int fd, const void *data, size_t size, bool async)
{
	struct io_uring_sqe send = entry(IORING_OP_SEND, fd, data, size, async);

	send.msg_flags = MSG_NOSIGNAL;
	return uring(&send);
}

long uring_recv(int fd, void *data, size_t size, bool async)
{
	struct io_uring_sqe receive = entry(IORING_OP_RECV, fd, data, size, async);

	return uring(&receive);
}
