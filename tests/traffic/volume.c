// SPDX-License-Identifier: MIT
/* Many connections in one step. The answer lists the client's port of each, in order. */
#define _GNU_SOURCE
#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

struct list {
	struct step *step;
	size_t used;
};

static void open_list(struct list *list, struct step *step, const char *key)
{
	list->step = step;
	list->used = strlen(step->extra);
	list->used += snprintf(step->extra + list->used, sizeof(step->extra) - list->used, ",\"%s\":[", key);
}

static void add(struct list *list, long value)
{
	char *end = list->step->extra + list->used;

	list->used += snprintf(end, sizeof(list->step->extra) - list->used, "%s%ld", end[-1] == '[' ? "" : ",", value);
	if (list->used > sizeof(list->step->extra) - 64)
		abort();
}

static void close_list(struct list *list)
{
	strcpy(list->step->extra + list->used, "]");
	list->used++;
}

static int port_of(int fd, int (*get)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_in6 raw = {0}; /* the port lies at the same place in both families */
	socklen_t size = sizeof(raw);

	return get(fd, (struct sockaddr *)&raw, &size) ? 0 : ntohs(raw.sin6_port);
}

/* Exactly so many bytes each way, or false. */
static bool exchange(int fd, long bytes, ssize_t (*once)(int fd, void *data, size_t size))
{
	char data[4096] = {0};

	while (bytes > 0) {
		ssize_t part = once(fd, data, bytes < (long)sizeof(data) ? bytes : (long)sizeof(data));

		if (part <= 0)
			return false;
		bytes -= part;
	}
	return true;
}

static ssize_t put(int fd, void *data, size_t size)
{
	return send(fd, data, size, MSG_NOSIGNAL);
}

static ssize_t get(int fd, void *data, size_t size)
{
	return recv(fd, data, size, 0);
}

/* Closes first, or waits for the peer's FIN and closes then. */
static void end(int fd, bool first)
{
	char byte;

	if (!first)
		while (recv(fd, &byte, 1, 0) > 0)
			;
	close(fd);
}

/* visit COUNT ADDR PORT SEND RECEIVE first|last */
static void visit(struct step *step)
{
	long count = number(step, 1), out = number(step, 4), in = number(step, 5), visits = 0;
	bool first = !strcmp(text(step, 6), "first");
	struct sockaddr_storage to;
	socklen_t size = address(step, 2, &to);
	struct list ports;

	open_list(&ports, step, "ports");
	for (; visits < count; visits++) {
		int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (!done(step, connect(fd, (struct sockaddr *)&to, size)))
			break;
		add(&ports, port_of(fd, getsockname));
		if (!exchange(fd, out, put) || !exchange(fd, in, get)) {
			done(step, -1);
			break;
		}
		end(fd, first);
	}
	close_list(&ports);
	step->result = visits;
}

/* serve FD COUNT RECEIVE SEND first|last */
static void serve_many(struct step *step)
{
	long count = number(step, 2), in = number(step, 3), out = number(step, 4), served = 0;
	bool first = !strcmp(text(step, 5), "first");
	int listener = number(step, 1);
	struct list ports;

	open_list(&ports, step, "ports");
	for (; served < count; served++) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (!done(step, fd))
			break;
		add(&ports, port_of(fd, getpeername));
		if (!exchange(fd, in, get) || !exchange(fd, out, put)) {
			done(step, -1);
			break;
		}
		end(fd, first);
	}
	close_list(&ports);
	step->result = served;
}

/* refused COUNT ADDR PORT: the result is how many were */
static void refused(struct step *step)
{
	struct sockaddr_storage to;
	socklen_t size = address(step, 2, &to);
	long count = number(step, 1), outcome = 0;

	while (count--) {
		int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

		outcome += connect(fd, (struct sockaddr *)&to, size) && errno == ECONNREFUSED;
		close(fd);
	}
	done(step, outcome);
}

/* hit COUNT ADDR PORT NAME: each from a process of its own, which is gone at once */
static void hit(struct step *step)
{
	struct sockaddr_storage to;
	socklen_t size = address(step, 2, &to);
	long count = number(step, 1);
	struct list ports, pids;
	int pairs[512][2], back[2];

	if (count > 512 || pipe2(back, O_CLOEXEC))
		abort();
	for (long at = 0; at < count; at++) {
		pid_t child = fork();

		if (!child) {
			int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), pair[2] = {getpid(), 0};

			pthread_setname_np(pthread_self(), text(step, 4));
			if (!connect(fd, (struct sockaddr *)&to, size))
				pair[1] = port_of(fd, getsockname);
			send(fd, "!", 1, MSG_NOSIGNAL);
			if (write(back[1], pair, sizeof(pair)) != sizeof(pair))
				abort();
			_exit(0);
		}
		if (read(back[0], pairs[at], sizeof(pairs[at])) != sizeof(pairs[at]))
			abort();
	}
	close(back[0]);
	close(back[1]);
	open_list(&pids, step, "pids");
	for (long at = 0; at < count; at++)
		add(&pids, pairs[at][0]);
	close_list(&pids);
	open_list(&ports, step, "ports");
	for (long at = 0; at < count; at++)
		add(&ports, pairs[at][1]);
	close_list(&ports);
	done(step, count);
}

/* Until the connection of this number is due, at so many a second. */
static void pace(const struct timespec *started, long made, long rate)
{
	struct timespec due = {started->tv_sec + made / rate, started->tv_nsec + made % rate * (1000000000 / rate)};

	if (due.tv_nsec >= 1000000000) {
		due.tv_sec++;
		due.tv_nsec -= 1000000000;
	}
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
		;
}

/*
 * flood COUNT BYTES [RATE]: both ends in one thread, as fast as it goes, or so many a second. Clients come from
 * 127.1.0.0/16 in turn, or ports would run out in TIME_WAIT.
 */
static void flood(struct step *step)
{
	struct sockaddr_in server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	long count = number(step, 1), bytes = number(step, 2), made = 0;
	long rate = step->words > 3 ? number(step, 3) : 0;
	socklen_t size = sizeof(server);
	struct timespec started;

	clock_gettime(CLOCK_MONOTONIC, &started);
	if (bind(listener, (struct sockaddr *)&server, size) || listen(listener, 16) ||
	    getsockname(listener, (struct sockaddr *)&server, &size))
		abort();
	for (; made < count; made++) {
		struct sockaddr_in client = {.sin_family = AF_INET,
					     .sin_addr.s_addr = htonl(0x7f010001 + made % 60000)};
		int near, far;

		if (rate)
			pace(&started, made, rate);
		near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		setsockopt(near, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
		if (!done(step, bind(near, (struct sockaddr *)&client, sizeof(client))) ||
		    !done(step, connect(near, (struct sockaddr *)&server, size)) ||
		    !done(step, far = accept4(listener, NULL, NULL, SOCK_CLOEXEC)))
			break;
		if (!exchange(near, bytes, put) || !exchange(far, bytes, get)) {
			done(step, -1);
			break;
		}
		close(near);
		close(far);
	}
	snprintf(step->extra, sizeof(step->extra), ",\"port\":%u", ntohs(server.sin_port));
	close(listener);
	step->result = made;
}

const struct verb volume_verbs[] = {
	{"visit", visit}, {"serve", serve_many}, {"refused", refused}, {"hit", hit}, {"flood", flood}, {0},
};
