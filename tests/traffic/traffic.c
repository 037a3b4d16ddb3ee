// SPDX-License-Identifier: MIT
/* The loop: a packet in, a step done, a JSON object out. */
#define _GNU_SOURCE
#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const struct verb *const tables[] = {tcp_verbs, byte_verbs,  process_verbs,  volume_verbs, name_verbs,
					    dns_verbs, mount_verbs, datagram_verbs, mayfly_verbs, swap_verbs};

static void __attribute__((noreturn, format(printf, 2, 3))) mistake(const struct step *step, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fprintf(stderr, "traffic: %s: ", step->word[0]);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	exit(2);
}

const char *text(const struct step *step, int at)
{
	if (at >= step->words)
		mistake(step, "word %d is missing", at);
	return step->word[at];
}

long long number(const struct step *step, int at)
{
	char *end;
	long long value = strtoll(text(step, at), &end, 10);

	if (*end)
		mistake(step, "'%s' is no number", step->word[at]);
	return value;
}

bool has(const struct step *step, const char *option)
{
	for (int at = 1; at < step->words; at++)
		if (!strcmp(step->word[at], option))
			return true;
	return false;
}

socklen_t address(const struct step *step, int at, struct sockaddr_storage *to)
{
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
	struct sockaddr_in *v4 = (struct sockaddr_in *)to;

	memset(to, 0, sizeof(*to));
	if (inet_pton(AF_INET, text(step, at), &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(number(step, at + 1));
		return sizeof(*v4);
	}
	if (inet_pton(AF_INET6, text(step, at), &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(number(step, at + 1));
		return sizeof(*v6);
	}
	mistake(step, "'%s' is no address", step->word[at]);
}

bool done(struct step *step, long long value)
{
	step->result = value;
	step->error = value < 0 ? errno : 0;
	return value >= 0;
}

const char *error_name(int error)
{
#ifdef __GLIBC__
	const char *name = error ? strerrorname_np(error) : NULL;
#else
	const char *name = error ? strerror(error) : NULL; /* musl knows no names */
#endif

	return name ? name : "";
}

static long long now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void put_address(char *out, size_t size, int fd, const char *key,
			int (*get)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_storage raw = {0};
	socklen_t length = sizeof(raw);
	char addr[INET6_ADDRSTRLEN];

	*out = 0;
	if (fd < 0 || get(fd, (struct sockaddr *)&raw, &length))
		return;
	if (raw.ss_family == AF_INET) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)&raw;

		inet_ntop(AF_INET, &v4->sin_addr, addr, sizeof(addr));
		snprintf(out, size, ",\"%s\":[\"%s\",%u]", key, addr, ntohs(v4->sin_port));
	} else if (raw.ss_family == AF_INET6) {
		struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&raw;

		inet_ntop(AF_INET6, &v6->sin6_addr, addr, sizeof(addr));
		snprintf(out, size, ",\"%s\":[\"%s\",%u]", key, addr, ntohs(v6->sin6_port));
	}
}

/* The name of the process is that of its main thread. */
static void process_name(char *name, size_t size)
{
	char path[64];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/comm", getpid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	length = fd < 0 ? 0 : read(fd, name, size - 1);
	name[length > 0 ? length - 1 : 0] = 0;
	if (fd >= 0)
		close(fd);
}

static void answer(struct step *step, const long long mono[2], const long long wall[2])
{
	char local[96], remote[96], comm[32], thread[16] = "", namespace[64];
	static __thread char reply[65536];
	struct stat netns = {0};
	int length;

	snprintf(namespace, sizeof(namespace), "/proc/%d/task/%d/ns/net", getpid(), gettid());
	stat(namespace, &netns);
	process_name(comm, sizeof(comm));
	prctl(PR_GET_NAME, thread);
	put_address(local, sizeof(local), step->fd, "local", getsockname);
	put_address(remote, sizeof(remote), step->fd, "remote", getpeername);
	length = snprintf(
		reply, sizeof(reply),
		"{\"op\":\"%s\",\"pid\":%d,\"tid\":%d,\"comm\":\"%s\",\"thread\":\"%s\",\"uid\":%u,\"netns\":%lu,"
		"\"result\":%lld,\"errno\":\"%s\",\"fd\":%d%s%s,\"mono\":[%lld,%lld],\"wall\":[%lld,%lld]%s}",
		step->word[0], getpid(), gettid(), comm, thread, geteuid(), (unsigned long)netns.st_ino, step->result,
		error_name(step->error), step->taken, local, remote, mono[0], mono[1], wall[0], wall[1], step->extra);
	if (length >= (int)sizeof(reply))
		mistake(step, "the answer is too long");
	send(step->channel, reply, length, MSG_NOSIGNAL);
}

static const struct verb *find(const struct step *step)
{
	for (size_t table = 0; table < sizeof(tables) / sizeof(*tables); table++)
		for (const struct verb *verb = tables[table]; verb->name; verb++)
			if (!strcmp(verb->name, step->word[0]))
				return verb;
	mistake(step, "no such verb");
}

/* The next packet, split into words; false when the other side is gone. */
static bool next(struct step *step, char *packet, size_t size)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec vector = {packet, size - 1};
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t length = recvmsg(step->channel, &message, MSG_CMSG_CLOEXEC);
	struct cmsghdr *header;
	char *rest;

	if (length <= 0)
		return false;
	packet[length] = 0;
	header = CMSG_FIRSTHDR(&message);
	step->attached = header ? *(int *)CMSG_DATA(header) : -1;
	step->words = 0;
	for (char *word = strtok_r(packet, " ", &rest); word && step->words < MAX_WORDS;
	     word = strtok_r(NULL, " ", &rest))
		step->word[step->words++] = word;
	return step->words > 0;
}

void serve(int channel)
{
	static __thread struct step step;
	static __thread char packet[24576];

	do {
		long long mono[2], wall[2];
		const struct verb *verb;

		memset(&step, 0, sizeof(step));
		step.channel = channel;
		step.fd = step.taken = -1;
		if (!next(&step, packet, sizeof(packet)))
			break;
		verb = find(&step);
		wall[0] = now(CLOCK_REALTIME);
		mono[0] = now(CLOCK_MONOTONIC);
		verb->run(&step);
		mono[1] = now(CLOCK_MONOTONIC);
		wall[1] = now(CLOCK_REALTIME);
		answer(&step, mono, wall);
	} while (!step.leave);
	close(channel);
}

int main(int argc, char **argv)
{
	if (argc == 9 && !strcmp(argv[1], "mayfly"))
		return mayfly(argv + 2);
	if (argc != 3) {
		fprintf(stderr, "usage: traffic CHANNEL NAME\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); /* children are reaped by the kernel */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, argv[2]);
	serve(atoi(argv[1]));
	return 0;
}
