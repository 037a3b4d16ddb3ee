// SPDX-License-Identifier: MIT
/*
 * Open connections over loopback, in a network namespace of their own: crowd PAIRS PROCESSES
 *
 * Each process holds both ends of its share. Says "ready" when all are open, and ends with its standard input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void __attribute__((noreturn)) fail(const char *what)
{
	perror(what);
	exit(1);
}

static void settle(void)
{
	struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd;

	if (unshare(CLONE_NEWNET))
		fail("unshare");
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (ioctl(fd, SIOCSIFFLAGS, &loopback))
		fail("loopback");
	close(fd);
}

static void hold(long pairs, unsigned which)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + which)};
	struct rlimit files = {2 * pairs + 64, 2 * pairs + 64};
	socklen_t size = sizeof(to);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	if (setrlimit(RLIMIT_NOFILE, &files))
		fail("setrlimit");
	if (bind(listener, (struct sockaddr *)&to, size) || listen(listener, 128) ||
	    getsockname(listener, (struct sockaddr *)&to, &size))
		fail("listen");
	for (long at = 0; at < pairs; at++) {
		int near = socket(AF_INET, SOCK_STREAM, 0), far;

		if (connect(near, (struct sockaddr *)&to, size))
			fail("connect");
		far = accept(listener, NULL, NULL);
		if (far < 0 || write(near, "hello", 5) != 5)
			fail("accept");
	}
}

int main(int words, char **word)
{
	long pairs, processes;
	int ready[2];
	char byte;

	if (words != 3) {
		fputs("usage: crowd PAIRS PROCESSES\n", stderr);
		return 2;
	}
	pairs = atol(word[1]);
	processes = atol(word[2]);
	settle();
	if (pipe(ready))
		fail("pipe");
	for (long at = 0; at < processes; at++) {
		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		hold(pairs / processes, at + 1);
		if (write(ready[1], "r", 1) != 1)
			fail("pipe");
		pause();
		return 0;
	}
	close(ready[1]);
	for (long at = 0; at < processes; at++)
		if (read(ready[0], &byte, 1) != 1)
			fail("a process ended");
	puts("ready");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	kill(0, SIGTERM);
	return 0;
}
