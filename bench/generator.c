// SPDX-License-Identifier: MIT
/*
 * Loopback connections as fast as one thread can make them, both ends held by it: connect, accept, five bytes from
 * client to server, close, close. Two threads that wait for each other would measure the machine's wake-ups instead.
 *
 *     generator COUNT client|server CPU
 *
 * The one named closes first. One line of JSON tells what was done and how long it took.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS (127U << 24 | 1U << 16) /* 127.1.0.0, and on from there: or ports would run out in TIME_WAIT */

static struct sockaddr_in loopback(unsigned int address)
{
	return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
}

static int checked(int result, const char *what)
{
	if (result < 0)
		err(1, "%s", what);
	return result;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void connection(int listener, const struct sockaddr_in *server, unsigned int number, int server_first)
{
	struct sockaddr_in client = loopback(CLIENTS + number);
	int out = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	int in, one = 1;
	char data[5] = "12345";

	checked(setsockopt(out, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)), "IP_BIND_ADDRESS_NO_PORT");
	checked(bind(out, (struct sockaddr *)&client, sizeof(client)), "bind");
	checked(connect(out, (const struct sockaddr *)server, sizeof(*server)), "connect");
	in = checked(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept");
	if (send(out, data, sizeof(data), 0) != sizeof(data) ||
	    recv(in, data, sizeof(data), MSG_WAITALL) != sizeof(data))
		err(1, "five bytes");
	close(server_first ? in : out);
	close(server_first ? out : in);
}

int main(int argc, char **argv)
{
	struct sockaddr_in server = loopback(INADDR_LOOPBACK);
	socklen_t size = sizeof(server);
	unsigned int count, number;
	int listener, server_first;
	double start, seconds;
	cpu_set_t cpus;

	if (argc != 4)
		errx(2, "usage: generator COUNT client|server CPU");
	count = strtoul(argv[1], NULL, 10);
	server_first = !strcmp(argv[2], "server");
	CPU_ZERO(&cpus);
	CPU_SET(strtoul(argv[3], NULL, 10), &cpus);
	checked(sched_setaffinity(0, sizeof(cpus), &cpus), "sched_setaffinity");

	listener = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	checked(bind(listener, (struct sockaddr *)&server, sizeof(server)), "bind");
	checked(listen(listener, 16), "listen");
	checked(getsockname(listener, (struct sockaddr *)&server, &size), "getsockname");

	start = now();
	for (number = 1; number <= count; number++)
		connection(listener, &server, number, server_first);
	seconds = now() - start;
	printf("{\"pid\": %d, \"connections\": %u, \"seconds\": %.6f}\n", getpid(), count, seconds);
	return 0;
}
