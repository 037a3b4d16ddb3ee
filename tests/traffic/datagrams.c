// SPDX-License-Identifier: MIT
/* Datagrams: one a step, sent and taken through doors that a stream has not. Connected sockets use bytes.c, too. */
#define _GNU_SOURCE
#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <net/if.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 8 /* datagrams in a call */

static __thread char buffer[CHUNK];

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* udp 4|6 [nonblock] */
static void make_socket(struct step *step)
{
	int family = number(step, 1) == 4 ? AF_INET : AF_INET6;
	int type = SOCK_DGRAM | SOCK_CLOEXEC | (has(step, "nonblock") ? SOCK_NONBLOCK : 0);

	done(step, step->taken = socket(family, type, 0));
}

/* adopt: the descriptor that came along is this process's now */
static void adopt(struct step *step)
{
	step->fd = step->taken = step->attached;
	done(step, step->taken);
}

static long by_uring(int operation, int fd, struct msghdr *message, bool async)
{
	struct io_uring_sqe entry = {.opcode = operation, .fd = fd, .addr = (uintptr_t)message, .len = 1};

	entry.flags = async ? IOSQE_ASYNC : 0;
	return uring(&entry);
}

/* The same datagram some times: all that was taken, of as many as were. */
static ssize_t send_many(int fd, struct iovec *vector, struct sockaddr_storage *to, socklen_t size, unsigned many)
{
	struct mmsghdr messages[MOST] = {0};
	ssize_t sent, all = 0;

	for (unsigned at = 0; at < many; at++)
		messages[at].msg_hdr =
			(struct msghdr){.msg_name = to, .msg_namelen = size, .msg_iov = vector, .msg_iovlen = 1};
	sent = sendmmsg(fd, messages, many, 0);
	for (ssize_t at = 0; at < sent; at++)
		all += messages[at].msg_len;
	return sent < 0 ? sent : all;
}

static ssize_t send_one(int fd, size_t count, struct sockaddr_storage *to, socklen_t size, const char *how)
{
	struct iovec vector = {buffer, smaller(count, CHUNK)};
	struct msghdr message = {.msg_name = to, .msg_namelen = size, .msg_iov = &vector, .msg_iovlen = 1};

	if (!strcmp(how, "sendto"))
		return sendto(fd, buffer, vector.iov_len, 0, (struct sockaddr *)to, size);
	if (!strcmp(how, "more"))
		return sendto(fd, buffer, vector.iov_len, MSG_MORE, (struct sockaddr *)to, size);
	if (!strcmp(how, "sendmsg"))
		return sendmsg(fd, &message, 0);
	if (!strcmp(how, "sendmmsg"))
		return send_many(fd, &vector, to, size, 3);
	if (!strcmp(how, "uring") || !strcmp(how, "uring-async"))
		return by_uring(IORING_OP_SENDMSG, fd, &message, !strcmp(how, "uring-async"));
	errno = ENOSYS;
	return -1;
}

/* tell FD COUNT ADDR PORT HOW */
static void tell_one(struct step *step)
{
	struct sockaddr_storage to;
	socklen_t size = address(step, 3, &to);

	step->fd = number(step, 1);
	done(step, send_one(step->fd, number(step, 2), &to, size, text(step, 5)));
}

/* tell-many FD COUNT ADDR PORT MANY: one datagram to each of so many ports, from PORT on; the result is how many */
static void tell_many(struct step *step)
{
	long long many = number(step, 5), sent = 0;
	struct sockaddr_storage to;
	socklen_t size = address(step, 3, &to);
	in_port_t *port = to.ss_family == AF_INET ? &((struct sockaddr_in *)&to)->sin_port
						  : &((struct sockaddr_in6 *)&to)->sin6_port;

	step->fd = number(step, 1);
	for (unsigned first = ntohs(*port); sent < many; sent++) {
		*port = htons(first + sent);
		if (!done(step, send_one(step->fd, number(step, 2), &to, size, "sendto")))
			return;
	}
	done(step, sent);
}

/* say FD BYTES: as one datagram of a connected socket */
static void say(struct step *step)
{
	size_t size = bytes_of(step, 2, buffer, CHUNK);

	step->fd = number(step, 1);
	done(step, send(step->fd, buffer, size, 0));
}

static ssize_t take_one(int fd, struct msghdr *message, const char *how)
{
	struct mmsghdr many = {.msg_hdr = *message};
	void *room = message->msg_iov->iov_base;
	size_t size = message->msg_iov->iov_len;
	int taken;

	if (!strcmp(how, "recv"))
		return recv(fd, room, size, 0);
	if (!strcmp(how, "read"))
		return read(fd, room, size);
	if (!strcmp(how, "recvfrom"))
		return recvfrom(fd, room, size, 0, message->msg_name, &message->msg_namelen);
	if (!strcmp(how, "peek"))
		return recvfrom(fd, room, size, MSG_PEEK, message->msg_name, &message->msg_namelen);
	if (!strcmp(how, "trunc"))
		return recvfrom(fd, room, size, MSG_TRUNC, message->msg_name, &message->msg_namelen);
	if (!strcmp(how, "recvmsg"))
		return recvmsg(fd, message, 0);
	if (!strcmp(how, "errqueue"))
		return recvmsg(fd, message, MSG_ERRQUEUE);
	if (!strcmp(how, "recvmmsg")) {
		taken = recvmmsg(fd, &many, 1, 0, NULL);
		*message = many.msg_hdr;
		return taken < 0 ? taken : (ssize_t)many.msg_len;
	}
	if (!strcmp(how, "uring") || !strcmp(how, "uring-async"))
		return by_uring(IORING_OP_RECVMSG, fd, message, !strcmp(how, "uring-async"));
	errno = ENOSYS;
	return -1;
}

/* hear FD ROOM HOW: one datagram; `from` is who sent it, as far as the call tells */
static void hear(struct step *step)
{
	struct iovec vector = {buffer, smaller(number(step, 2), CHUNK)};
	struct sockaddr_storage from = {0};
	struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &vector, .msg_iovlen = 1};
	char addr[INET6_ADDRSTRLEN], told[96];
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&from;
	struct sockaddr_in *v4 = (struct sockaddr_in *)&from;

	step->fd = number(step, 1);
	if (!done(step, take_one(step->fd, &message, text(step, 3))))
		return;
	if (from.ss_family == AF_INET)
		inet_ntop(AF_INET, &v4->sin_addr, addr, sizeof(addr));
	else if (from.ss_family == AF_INET6)
		inet_ntop(AF_INET6, &v6->sin6_addr, addr, sizeof(addr));
	else
		return;
	snprintf(told, sizeof(told), ",\"from\":[\"%s\",%u]", addr,
		 ntohs(from.ss_family == AF_INET ? v4->sin_port : v6->sin6_port));
	add_text(step, told);
}

/* join FD GROUP DEVICE: listen to it there, and send to groups there */
static void join(struct step *step)
{
	struct ipv6_mreq v6 = {.ipv6mr_interface = if_nametoindex(text(step, 3))};
	struct ip_mreqn v4 = {.imr_ifindex = v6.ipv6mr_interface};
	int device = v4.imr_ifindex;

	step->fd = number(step, 1);
	if (inet_pton(AF_INET, text(step, 2), &v4.imr_multiaddr) == 1) {
		if (done(step, setsockopt(step->fd, IPPROTO_IP, IP_MULTICAST_IF, &v4, sizeof(v4))))
			done(step, setsockopt(step->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &v4, sizeof(v4)));
		return;
	}
	inet_pton(AF_INET6, text(step, 2), &v6.ipv6mr_multiaddr);
	if (done(step, setsockopt(step->fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &device, sizeof(device))))
		done(step, setsockopt(step->fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &v6, sizeof(v6)));
}

const struct verb datagram_verbs[] = {
	{"udp", make_socket}, {"adopt", adopt}, {"tell", tell_one}, {"tell-many", tell_many},
	{"say", say},         {"hear", hear},   {"join", join},     {0},
};
