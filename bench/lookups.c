// SPDX-License-Identifier: MIT
/*
 * Lookups in a namespace of their own: lookups libc|packets COUNT RATE CPU HOSTS
 *
 * libc: getaddrinfo of a name in HOSTS, which is /etc/hosts for this process. packets: another name each time, asked of
 * a server here that answers with another address each time. RATE is how many a second, in bursts of a tenth of one; 0
 * is no limit. Prints a JSON object: pid, lookups that were answered, seconds of it all, and of the calls alone.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define HEADER 12

static void __attribute__((noreturn)) fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void settle(const char *hosts)
{
	struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount(hosts, "/etc/hosts", NULL, MS_BIND, NULL))
		fail("namespaces");
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (ioctl(fd, SIOCSIFFLAGS, &loopback))
		fail("loopback");
	close(fd);
}

static bool by_libc(long at)
{
	static const struct addrinfo wish = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found;

	(void)at;
	if (getaddrinfo("measured.example", NULL, &wish, &found))
		return false;
	freeaddrinfo(found);
	return true;
}

static struct sockaddr_in address_of_server(void)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static size_t question(unsigned char *to, long number)
{
	static const unsigned char header[HEADER] = {0, 0, 1, 0, 0, 1}, rest[] = "\5names\4test\0\0\1\0";
	char label[32];
	int size = snprintf(label, sizeof(label), "n%ld", number);

	memcpy(to, header, HEADER);
	to[0] = number >> 8;
	to[1] = number;
	to[HEADER] = size;
	memcpy(to + HEADER + 1, label, size);
	memcpy(to + HEADER + 1 + size, rest, sizeof(rest));
	to[HEADER + size + sizeof(rest)] = 1; /* IN, over the NUL of the literal */
	return HEADER + 1 + size + sizeof(rest);
}

static bool by_packets(long at)
{
	static int fd = -1;
	unsigned char message[512];
	struct sockaddr_in to = address_of_server();
	size_t size = question(message, at);

	if (fd < 0) {
		fd = socket(AF_INET, SOCK_DGRAM, 0);
		if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
			fail("connect");
	}
	return send(fd, message, size, 0) == (ssize_t)size && recv(fd, message, sizeof(message), 0) > (ssize_t)size;
}

/* A child that answers every question, until its parent is gone. */
static void start_server(void)
{
	unsigned char message[512], record[16] = {0xc0, HEADER, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4};
	struct sockaddr_in here = address_of_server(), from;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (bind(fd, (struct sockaddr *)&here, sizeof(here)))
		fail("bind");
	if (fork()) {
		close(fd);
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned at = 0;; at++) {
		socklen_t room = sizeof(from);
		ssize_t size =
			recvfrom(fd, message, sizeof(message) - sizeof(record), 0, (struct sockaddr *)&from, &room);
		uint32_t address = htonl(0x0a000000 + at);

		message[2] |= 0x80;
		message[7] = 1;
		memcpy(record + 12, &address, sizeof(address));
		memcpy(message + size, record, sizeof(record));
		sendto(fd, message, size + sizeof(record), 0, (struct sockaddr *)&from, room);
	}
}

int main(int words, char **word)
{
	double started, calls = 0;
	long count, rate, burst, done = 0;
	cpu_set_t cpu;
	bool libc;

	if (words != 6) {
		fputs("usage: lookups libc|packets COUNT RATE CPU HOSTS\n", stderr);
		return 2;
	}
	libc = !strcmp(word[1], "libc");
	count = atol(word[2]);
	rate = atol(word[3]);
	burst = rate ? (rate + 9) / 10 : count;
	CPU_ZERO(&cpu);
	CPU_SET(atoi(word[4]), &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
	settle(word[5]);
	if (!libc)
		start_server();
	started = now();
	for (long at = 0; at < count;) {
		double due = rate ? started + (at + burst) / (double)rate : 0, begun = now(), left;

		for (long end = at + burst < count ? at + burst : count; at < end; at++)
			done += (libc ? by_libc : by_packets)(at);
		calls += now() - begun;
		left = due - now();
		if (left > 0)
			usleep(left * 1e6);
	}
	printf("{\"pid\": %d, \"lookups\": %ld, \"seconds\": %.6f, \"calls_seconds\": %.6f}\n", getpid(), done,
	       now() - started, calls);
	return 0;
}
