// SPDX-License-Identifier: MIT
/* Payload, through every door the kernel has for it. The result is what was taken or given, never what was asked. */
#define _GNU_SOURCE
#include "traffic.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

static __thread char buffer[CHUNK];

/* A pipe and a file of zeros a thread, made when first needed. */
static int *zero_pipe(void)
{
	static __thread int ends[2];

	if (!ends[1] && pipe2(ends, O_CLOEXEC))
		abort();
	return ends;
}

static int zero_file(void)
{
	static __thread int fd;

	if (!fd) {
		fd = memfd_create("zeros", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, 1 << 20))
			abort();
	}
	return fd;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Two halves, so that the vector forms have something to do. */
static struct msghdr halves(struct iovec vector[2], size_t size)
{
	vector[0] = (struct iovec){buffer, size / 2};
	vector[1] = (struct iovec){buffer + size / 2, size - size / 2};
	return (struct msghdr){.msg_iov = vector, .msg_iovlen = 2};
}

static ssize_t send_some(int fd, size_t size, const char *how)
{
	struct iovec vector[2];
	off_t start = 0;

	if (!strcmp(how, "sendfile"))
		return sendfile(fd, zero_file(), &start, smaller(size, 1 << 20));
	size = smaller(size, CHUNK);
	if (!strcmp(how, "send"))
		return send(fd, buffer, size, MSG_NOSIGNAL);
	if (!strcmp(how, "dontwait"))
		return send(fd, buffer, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (!strcmp(how, "write"))
		return write(fd, buffer, size);
	if (!strcmp(how, "writev")) {
		halves(vector, size);
		return writev(fd, vector, 2);
	}
	if (!strcmp(how, "sendmsg")) {
		struct msghdr message = halves(vector, size);

		return sendmsg(fd, &message, MSG_NOSIGNAL);
	}
	if (!strcmp(how, "sendmmsg")) {
		struct mmsghdr messages[2] = {{.msg_hdr = {.msg_iov = &vector[0], .msg_iovlen = 1}},
					      {.msg_hdr = {.msg_iov = &vector[1], .msg_iovlen = 1}}};
		int sent;

		halves(vector, size);
		sent = sendmmsg(fd, messages, 2, MSG_NOSIGNAL);
		return sent < 0 ? sent : (ssize_t)(messages[0].msg_len + (sent == 2 ? messages[1].msg_len : 0));
	}
	if (!strcmp(how, "splice")) {
		ssize_t filled = write(zero_pipe()[1], buffer, size);

		return filled < 0 ? filled : splice(zero_pipe()[0], NULL, fd, NULL, filled, SPLICE_F_MOVE);
	}
	if (!strcmp(how, "uring") || !strcmp(how, "uring-async"))
		return uring_send(fd, buffer, size, !strcmp(how, "uring-async"));
	errno = ENOSYS;
	return -1;
}

static ssize_t receive_some(int fd, size_t size, const char *how)
{
	struct iovec vector[2];

	if (!strcmp(how, "trunc"))
		return recv(fd, NULL, smaller(size, 1 << 24), MSG_TRUNC);
	size = smaller(size, CHUNK);
	if (!strcmp(how, "recv"))
		return recv(fd, buffer, size, 0);
	if (!strcmp(how, "dontwait"))
		return recv(fd, buffer, size, MSG_DONTWAIT);
	if (!strcmp(how, "read"))
		return read(fd, buffer, size);
	if (!strcmp(how, "readv")) {
		halves(vector, size);
		return readv(fd, vector, 2);
	}
	if (!strcmp(how, "recvmsg")) {
		struct msghdr message = halves(vector, size);

		return recvmsg(fd, &message, 0);
	}
	if (!strcmp(how, "recvmmsg")) {
		struct mmsghdr message = {.msg_hdr = halves(vector, size)};
		int received = recvmmsg(fd, &message, 1, 0, NULL);

		return received < 0 ? received : (ssize_t)message.msg_len;
	}
	if (!strcmp(how, "splice")) {
		ssize_t filled = splice(fd, NULL, zero_pipe()[1], NULL, size, SPLICE_F_MOVE);

		return filled < 0 ? filled : read(zero_pipe()[0], buffer, filled);
	}
	if (!strcmp(how, "uring") || !strcmp(how, "uring-async"))
		return uring_recv(fd, buffer, size, !strcmp(how, "uring-async"));
	errno = ENOSYS;
	return -1;
}

/* Until all is through, the peer is done, or an error. */
static void move(struct step *step, ssize_t (*some)(int fd, size_t size, const char *how))
{
	long long whole = number(step, 2), moved = 0;
	ssize_t part = 0;

	step->fd = number(step, 1);
	while (moved < whole && (part = some(step->fd, whole - moved, text(step, 3))) > 0)
		moved += part;
	done(step, part);
	step->result = moved;
}

/* send FD COUNT HOW */
static void send_bytes(struct step *step)
{
	move(step, send_some);
}

/* recv FD COUNT HOW */
static void receive_bytes(struct step *step)
{
	move(step, receive_some);
}

/* peek FD COUNT: looks COUNT bytes ahead, takes none */
static void peek(struct step *step)
{
	step->fd = number(step, 1);
	done(step, recv(step->fd, buffer, smaller(number(step, 2), CHUNK), MSG_PEEK | MSG_WAITALL));
}

/* fastopen FD COUNT ADDR PORT: no connect(), the first bytes ask for the connection */
static void fast_open(struct step *step)
{
	struct sockaddr_storage to;
	socklen_t size = address(step, 3, &to);

	step->fd = number(step, 1);
	done(step, sendto(step->fd, buffer, smaller(number(step, 2), CHUNK), MSG_FASTOPEN | MSG_NOSIGNAL,
			  (struct sockaddr *)&to, size));
}

const struct verb byte_verbs[] = {
	{"send", send_bytes}, {"recv", receive_bytes}, {"peek", peek}, {"fastopen", fast_open}, {0},
};
