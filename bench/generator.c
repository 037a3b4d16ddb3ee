// SPDX-License-Identifier: MIT
/*
 * Loopback connections, both ends of each held by one thread: connect, accept, five bytes from client to server,
 * close, close. Two threads that wait for each other would measure the machine's wake-ups instead.
 *
 *     generator COUNT client|server CPU[,CPU...] [RATE]
 *
 * The one named closes first. Each CPU has a thread that makes its share, as fast as it can, or so that all together
 * make RATE a second. One line of JSON tells what was done and how long it took.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS (127U << 24 | 1U << 16) /* 127.1.0.0, and on from there: or ports would run out in TIME_WAIT */
#define MOST_THREADS 64
#define AHEAD 1e-3 /* seconds: what is due within them is made at once, as a sleep costs more than a connection */

struct maker {
	pthread_t thread;
	int cpu;
	unsigned int first; /* number of its first connection */
	unsigned int count;
	int server_first;
	double interval; /* seconds between the beginnings of two; 0: as fast as it can */
};

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

static void sleep_until(double moment)
{
	struct timespec until = {.tv_sec = moment, .tv_nsec = (moment - (long)moment) * 1e9};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL))
		;
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

static void *make(void *argument)
{
	const struct maker *maker = argument;
	struct sockaddr_in server = loopback(INADDR_LOOPBACK);
	socklen_t size = sizeof(server);
	unsigned int number;
	double start, due;
	cpu_set_t cpus;
	int listener;

	CPU_ZERO(&cpus);
	CPU_SET(maker->cpu, &cpus);
	checked(sched_setaffinity(0, sizeof(cpus), &cpus), "sched_setaffinity");
	listener = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	checked(bind(listener, (struct sockaddr *)&server, sizeof(server)), "bind");
	checked(listen(listener, 16), "listen");
	checked(getsockname(listener, (struct sockaddr *)&server, &size), "getsockname");

	start = now();
	for (number = 0; number < maker->count; number++) {
		due = start + number * maker->interval;
		if (maker->interval > 0 && due > now() + AHEAD)
			sleep_until(due);
		connection(listener, &server, maker->first + number, maker->server_first);
	}
	close(listener);
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned int count, made = 0, threads = 0, at;
	struct maker makers[MOST_THREADS];
	double rate, start, seconds;
	char *cpu;

	if (argc != 4 && argc != 5)
		errx(2, "usage: generator COUNT client|server CPU[,CPU...] [RATE]");
	count = strtoul(argv[1], NULL, 10);
	rate = argc == 5 ? strtod(argv[4], NULL) : 0;
	for (cpu = strtok(argv[3], ","); cpu && threads < MOST_THREADS; cpu = strtok(NULL, ","))
		makers[threads++].cpu = strtol(cpu, NULL, 10);
	for (at = 0; at < threads; at++) {
		makers[at].first = 1 + made;
		makers[at].count = (count - made) / (threads - at);
		makers[at].server_first = !strcmp(argv[2], "server");
		makers[at].interval = rate > 0 ? threads / rate : 0;
		made += makers[at].count;
	}

	start = now();
	for (at = 1; at < threads; at++)
		if (pthread_create(&makers[at].thread, NULL, make, &makers[at]))
			errx(1, "pthread_create");
	make(&makers[0]);
	for (at = 1; at < threads; at++)
		pthread_join(makers[at].thread, NULL);
	seconds = now() - start;
	printf("{\"pid\": %d, \"connections\": %u, \"seconds\": %.6f}\n", getpid(), made, seconds);
	return 0;
}
