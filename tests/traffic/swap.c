// SPDX-License-Identifier: MIT
/* Addresses in memory that a second thread changes, again and again, while the kernel reads them. */
#define _GNU_SOURCE
#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct swapped {
	union {
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} to;
	uint32_t *word; /* the last four bytes of the address, which alone differ */
	uint32_t words[2];
	socklen_t size;
	unsigned long turns;
	bool over;
	cpu_set_t cpus;
};

struct told {
	uint16_t port;
	uint8_t which; /* of the two, or 2: neither */
	uint8_t changed;
};

/* The first CPU of those that we may have, or the last. */
static void stay_on(const cpu_set_t *cpus, bool last)
{
	cpu_set_t one;
	int chosen = -1;

	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, cpus) && (last || chosen < 0))
			chosen = cpu;
	CPU_ZERO(&one);
	CPU_SET(chosen, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

static void *swap(void *argument)
{
	struct swapped *shared = argument;

	stay_on(&shared->cpus, true);
	for (unsigned long turn = 0; !__atomic_load_n(&shared->over, __ATOMIC_RELAXED); turn++) {
		__atomic_store_n(shared->word, shared->words[turn & 1], __ATOMIC_RELAXED);
		__atomic_store_n(&shared->turns, turn, __ATOMIC_RELAXED);
		for (int wait = turn * 7 % 97; wait > 0; wait--)
			__asm__ volatile("");
	}
	return NULL;
}

static uint32_t *last_word(void *to)
{
	struct sockaddr_in *v4 = to;
	struct sockaddr_in6 *v6 = to;

	return v4->sin_family == AF_INET ? &v4->sin_addr.s_addr : &v6->sin6_addr.s6_addr32[3];
}

static pthread_t begin(struct step *step, struct swapped *shared, uint16_t port)
{
	struct sockaddr_storage second;
	pthread_t thread;

	shared->size = address(step, 3, &second);
	shared->words[1] = *last_word(&second);
	address(step, 1, &second);
	shared->words[0] = *last_word(&second);
	memcpy(&shared->to, &second, sizeof(shared->to));
	shared->to.v4.sin_port = htons(port);
	shared->word = last_word(&shared->to);
	shared->over = false;
	shared->turns = 0;
	sched_getaffinity(0, sizeof(shared->cpus), &shared->cpus);
	if (pthread_create(&thread, NULL, swap, shared))
		abort();
	stay_on(&shared->cpus, false);
	return thread;
}

/* Until the other thread certainly runs. */
static void await_turn(const struct swapped *shared)
{
	unsigned long before = __atomic_load_n(&shared->turns, __ATOMIC_RELAXED);

	while (__atomic_load_n(&shared->turns, __ATOMIC_RELAXED) == before)
		sched_yield();
}

static void end(struct swapped *shared, pthread_t thread)
{
	__atomic_store_n(&shared->over, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	sched_setaffinity(0, sizeof(shared->cpus), &shared->cpus);
}

static uint8_t which(const struct swapped *shared, void *address)
{
	uint32_t word = *last_word(address);

	return word == shared->words[0] ? 0 : word == shared->words[1] ? 1 : 2;
}

/* A socket of a kind that is bound to either address, and the port of the first is the second's too. */
static uint16_t bind_both(struct step *step, int kind, int fds[2])
{
	struct sockaddr_storage here;
	socklen_t size;
	int one = 1;
	uint16_t port = 0;

	for (int at = 0; at < 2; at++) {
		size = address(step, 1 + 2 * at, &here);
		fds[at] = socket(here.ss_family, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		setsockopt(fds[at], SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		((struct sockaddr_in *)&here)->sin_port = port;
		if (bind(fds[at], (struct sockaddr *)&here, size) ||
		    getsockname(fds[at], (struct sockaddr *)&here, &size))
			abort();
		port = ((struct sockaddr_in *)&here)->sin_port;
	}
	return ntohs(port);
}

/* The truth twice: what the kernel says of the socket, and on which listener it arrived. */
static void settle(struct step *step, struct swapped *shared, int fd, const int listeners[2], struct told *told)
{
	static const struct linger reset = {1, 0};
	struct sockaddr_storage end;
	socklen_t size = sizeof(end);
	int far;

	if (getsockname(fd, (struct sockaddr *)&end, &size))
		abort();
	told->port = ntohs(((struct sockaddr_in *)&end)->sin_port);
	size = sizeof(end);
	if (getpeername(fd, (struct sockaddr *)&end, &size))
		abort();
	told->which = which(shared, &end);
	far = told->which < 2 ? accept4(listeners[told->which], NULL, NULL, SOCK_CLOEXEC) : -1;
	if (!done(step, far))
		return;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)); /* no port waits afterwards */
	close(fd);
	close(far);
}

/* swap-connect ADDR 0 ADDR 0 COUNT LOG block|nonblock: to either there is a listener */
static void swap_connect(struct step *step)
{
	long count = number(step, 5), made = 0;
	bool blocks = !strcmp(text(step, 7), "block");
	static struct swapped shared;
	int listeners[2], log = open(text(step, 6), O_WRONLY | O_CLOEXEC);
	uint16_t port = bind_both(step, SOCK_STREAM, listeners);
	pthread_t thread = begin(step, &shared, port);

	listen(listeners[0], 16);
	listen(listeners[1], 16);
	for (; made < count; made++) {
		int fd = socket(shared.to.v4.sin_family, SOCK_STREAM | SOCK_CLOEXEC | (blocks ? 0 : SOCK_NONBLOCK), 0);
		struct told told = {0};
		uint32_t before;

		await_turn(&shared);
		before = *(volatile uint32_t *)shared.word;
		if (connect(fd, (struct sockaddr *)&shared.to, shared.size)) {
			struct pollfd ready = {fd, POLLOUT, 0};

			if (errno != EINPROGRESS || poll(&ready, 1, 10000) != 1)
				abort();
		}
		told.changed = before != *(volatile uint32_t *)shared.word;
		settle(step, &shared, fd, listeners, &told);
		if (step->result < 0 || write(log, &told, sizeof(told)) != sizeof(told))
			break;
	}
	end(&shared, thread);
	close(listeners[0]);
	close(listeners[1]);
	close(log);
	done(step, made);
}

/* swap-fail ADDR PORT ADDR PORT COUNT LOG: the first refuses, the second cannot be reached */
static void swap_fail(struct step *step)
{
	long count = number(step, 5), made = 0;
	static struct swapped shared;
	int log = open(text(step, 6), O_WRONLY | O_CLOEXEC);
	pthread_t thread = begin(step, &shared, number(step, 2));

	for (; made < count; made++) {
		int fd = socket(shared.to.v4.sin_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
		struct told told = {0};
		uint32_t before;

		await_turn(&shared);
		before = *(volatile uint32_t *)shared.word;
		if (!connect(fd, (struct sockaddr *)&shared.to, shared.size))
			abort();
		told.which = errno == ECONNREFUSED ? 0 : errno == ENETUNREACH ? 1 : 2;
		told.changed = before != *(volatile uint32_t *)shared.word;
		close(fd);
		if (write(log, &told, sizeof(told)) != sizeof(told))
			break;
	}
	end(&shared, thread);
	close(log);
	done(step, made);
}

static long drain(int fd)
{
	long heard = 0;
	char byte;

	while (recv(fd, &byte, 1, 0) == 1)
		heard++;
	return heard;
}

/* swap-datagrams ADDR 0 ADDR 0 COUNT sendto|sendmsg: one socket sends; `heard` is how many came to either */
static void swap_datagrams(struct step *step)
{
	long count = number(step, 5), made = 0, heard[2] = {0};
	bool by_message = !strcmp(text(step, 6), "sendmsg");
	static struct swapped shared;
	char byte = 'x', extra[96];
	int receivers[2], fd;
	uint16_t port = bind_both(step, SOCK_DGRAM, receivers);
	pthread_t thread = begin(step, &shared, port);
	struct iovec vector = {&byte, 1};
	struct msghdr message = {.msg_name = &shared.to, .msg_iov = &vector, .msg_iovlen = 1};

	message.msg_namelen = shared.size;
	fd = socket(shared.to.v4.sin_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	for (; made < count; made++) {
		ssize_t sent;

		await_turn(&shared);
		sent = by_message ? sendmsg(fd, &message, 0)
				  : sendto(fd, &byte, 1, 0, (struct sockaddr *)&shared.to, shared.size);
		if (!done(step, sent))
			break;
		heard[0] += drain(receivers[0]);
		heard[1] += drain(receivers[1]);
	}
	end(&shared, thread);
	snprintf(extra, sizeof(extra), ",\"heard\":[%ld,%ld],\"port\":%u", heard[0], heard[1], port);
	add_text(step, extra);
	close(fd);
	close(receivers[0]);
	close(receivers[1]);
	done(step, made);
}

const struct verb swap_verbs[] = {
	{"swap-connect", swap_connect}, {"swap-fail", swap_fail}, {"swap-datagrams", swap_datagrams}, {0}};
