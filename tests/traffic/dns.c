// SPDX-License-Identifier: MIT
/* Names asked by packets, as programs do that bring a resolver of their own; and a server of one answer. */
#define _GNU_SOURCE
#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define HEADER 12
#define LARGEST 65535
#define PATIENCE_MS 30000

struct query {
	unsigned char bytes[1024];
	size_t size;
};

static void put16(struct query *query, unsigned value)
{
	query->bytes[query->size++] = value >> 8;
	query->bytes[query->size++] = value;
}

static unsigned get16(const unsigned char *at)
{
	return at[0] << 8 | at[1];
}

/* A label ends at a dot, whatever its bytes. `edns`: the largest answer that is asked for, or 0. */
static void make_query(struct query *query, unsigned id, const char *name, size_t size, unsigned type, unsigned edns)
{
	query->size = 0;
	put16(query, id);
	put16(query, 0x0100); /* recursion is wished for */
	put16(query, 1);
	put16(query, 0);
	put16(query, 0);
	put16(query, edns ? 1 : 0);
	for (size_t from = 0; from < size;) {
		const char *dot = memchr(name + from, '.', size - from);
		size_t label = dot ? (size_t)(dot - name) - from : size - from;

		if (!label || label > 63 || query->size + label > 900)
			abort();
		query->bytes[query->size++] = label;
		memcpy(query->bytes + query->size, name + from, label);
		query->size += label;
		from += label + 1;
	}
	query->bytes[query->size++] = 0;
	put16(query, type);
	put16(query, 1); /* IN */
	if (!edns)
		return;
	query->bytes[query->size++] = 0;
	put16(query, 41); /* OPT */
	put16(query, edns);
	put16(query, 0);
	put16(query, 0);
	put16(query, 0);
}

static size_t skip_name(const unsigned char *message, size_t at, size_t size)
{
	while (at < size && message[at]) {
		if (message[at] >= 0xc0)
			return at + 2;
		at += message[at] + 1;
	}
	return at + 1;
}

static void tell_answer(struct step *step, const unsigned char *message, size_t size)
{
	unsigned questions, answers;
	char facts[96];
	size_t at = HEADER;

	if (size < HEADER)
		return;
	snprintf(facts, sizeof(facts), ",\"rcode\":%u,\"truncated\":%s,\"size\":%zu,\"addresses\":[", message[3] & 15,
		 message[2] & 2 ? "true" : "false", size);
	add_text(step, facts);
	for (questions = get16(message + 4); questions; questions--)
		at = skip_name(message, at, size) + 4;
	for (answers = get16(message + 6); answers; answers--) {
		unsigned type, length;

		at = skip_name(message, at, size);
		if (at + 10 > size)
			break;
		type = get16(message + at);
		length = get16(message + at + 8);
		at += 10;
		if (at + length > size)
			break;
		if (type == 1 && length == 4)
			add_address(step, AF_INET, message + at);
		if (type == 28 && length == 16)
			add_address(step, AF_INET6, message + at);
		at += length;
	}
	add_text(step, "]");
}

static bool send_datagram(const struct step *step, int fd, struct query *query, void *to, socklen_t size)
{
	struct iovec vector = {query->bytes, query->size};
	struct mmsghdr message = {.msg_hdr = {.msg_iov = &vector, .msg_iovlen = 1}};

	if (has(step, "unconnected"))
		return sendto(fd, query->bytes, query->size, 0, to, size) == (ssize_t)query->size;
	if (has(step, "unconnected-sendmmsg")) {
		message.msg_hdr.msg_name = to;
		message.msg_hdr.msg_namelen = size;
	} else if (connect(fd, to, size))
		return false;
	if (has(step, "sendmmsg") || has(step, "unconnected-sendmmsg"))
		return sendmmsg(fd, &message, 1, 0) == 1;
	return send(fd, query->bytes, query->size, 0) == (ssize_t)query->size;
}

static bool send_stream(const struct step *step, int fd, struct query *query, void *to, socklen_t size)
{
	int one = 1;

	memmove(query->bytes + 2, query->bytes, query->size);
	query->bytes[0] = query->size >> 8;
	query->bytes[1] = query->size;
	query->size += 2;
	if (connect(fd, to, size) || setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof(one)))
		return false;
	if (!has(step, "tcp-bytes"))
		return send(fd, query->bytes, query->size, MSG_NOSIGNAL) == (ssize_t)query->size;
	for (size_t at = 0; at < query->size; at++)
		if (send(fd, query->bytes + at, 1, MSG_NOSIGNAL) != 1)
			return false;
	return true;
}

/* All of it at once, or into many small buffers of one call. */
static ssize_t take(const struct step *step, int fd, unsigned char *to, size_t room)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	struct iovec vector[64];
	int pieces = 0;

	if (poll(&wait, 1, PATIENCE_MS) != 1) {
		errno = ETIMEDOUT;
		return -1;
	}
	if (!has(step, "pieces"))
		return recv(fd, to, room, 0);
	for (; pieces < 63; pieces++)
		vector[pieces] = (struct iovec){to + pieces * 7, 7};
	vector[pieces] = (struct iovec){to + pieces * 7, room - pieces * 7};
	return readv(fd, vector, pieces + 1);
}

static ssize_t take_stream(const struct step *step, int fd, unsigned char *to, size_t room)
{
	size_t got = 0;

	while (got < 2 || got < 2 + get16(to)) {
		ssize_t part = take(step, fd, to + got, room - got);

		if (part <= 0)
			return -1;
		got += part;
	}
	memmove(to, to + 2, got - 2);
	return got - 2;
}

/*
 * resolve NAME TYPE ADDR PORT HOW [edns-4096] [pieces] [unheard]: HOW is connected, unconnected, sendmmsg,
 * unconnected-sendmmsg, tcp, or tcp-bytes (one at a time). `unheard`: the answer is not waited for.
 */
static void resolve(struct step *step)
{
	static __thread unsigned char answer[LARGEST];
	bool stream = has(step, "tcp") || has(step, "tcp-bytes"), sent;
	struct sockaddr_storage to;
	socklen_t size = address(step, 3, &to);
	struct query query;
	unsigned edns = 0;
	char name[512];
	ssize_t got;
	int fd;

	for (int at = 5; at < step->words; at++)
		sscanf(step->word[at], "edns-%u", &edns);
	got = bytes_of(step, 1, name, sizeof(name));
	make_query(&query, getpid() ^ time(NULL), name, got, number(step, 2), edns);
	fd = socket(to.ss_family, (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
	sent = (stream ? send_stream : send_datagram)(step, fd, &query, &to, size);
	step->fd = fd;
	if (!done(step, sent ? 0 : -1) || has(step, "unheard"))
		return;
	got = (stream ? take_stream : take)(step, fd, answer, sizeof(answer));
	if (done(step, got))
		tell_answer(step, answer, got);
	close(fd);
	step->fd = -1;
}

/* So many a second: the next is due then. */
static void pace(struct timespec *due, long rate)
{
	due->tv_nsec += 1000000000L / rate;
	if (due->tv_nsec >= 1000000000L) {
		due->tv_nsec -= 1000000000L;
		due->tv_sec++;
	}
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, due, NULL) == EINTR)
		;
}

/* questions COUNT NAME ADDR PORT RATE: A, by UDP, # being the number, each answered before the next; 0 is no limit */
static void questions(struct step *step)
{
	static __thread unsigned char answer[LARGEST];
	long count = number(step, 1), rate = number(step, 5), good = 0;
	struct sockaddr_storage to;
	socklen_t size = address(step, 3, &to);
	int fd = socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct timespec due;
	struct query query;
	char name[256];

	if (!done(step, connect(fd, (struct sockaddr *)&to, size)))
		return;
	clock_gettime(CLOCK_MONOTONIC, &due);
	for (; good < count; good++) {
		if (rate)
			pace(&due, rate);
		numbered(name, sizeof(name), text(step, 2), good);
		make_query(&query, good, name, strlen(name), 1, 0);
		if (!done(step, send(fd, query.bytes, query.size, 0)) ||
		    !done(step, take(step, fd, answer, sizeof(answer))))
			break;
	}
	close(fd);
	step->result = good;
}

/* answers FD COUNT ADDR TTL: to so many questions this address, and those that follow it if TTL is negative */
static void answers(struct step *step)
{
	unsigned char message[1024], record[16] = {0xc0, HEADER, 0, 1, 0, 1};
	long count = number(step, 2), ttl = number(step, 4), served = 0;
	int fd = number(step, 1);
	struct in_addr addr;

	if (inet_pton(AF_INET, text(step, 3), &addr) != 1)
		abort();
	for (; served < count; served++) {
		struct sockaddr_storage from;
		socklen_t room = sizeof(from);
		ssize_t size =
			recvfrom(fd, message, sizeof(message) - sizeof(record), 0, (struct sockaddr *)&from, &room);
		struct in_addr told = {htonl(ntohl(addr.s_addr) + (ttl < 0 ? served : 0))};

		if (!done(step, size))
			break;
		message[2] |= 0x80;
		message[3] |= 0x80;
		message[7] = 1;
		message[11] = 0;
		*(uint32_t *)(record + 6) = htonl(labs(ttl));
		record[11] = sizeof(told);
		memcpy(record + 12, &told, sizeof(told));
		size = skip_name(message, HEADER, size) + 4;
		memcpy(message + size, record, sizeof(record));
		if (!done(step, sendto(fd, message, size + sizeof(record), 0, (struct sockaddr *)&from, room)))
			break;
	}
	step->result = served;
}

/* datagram 4|6: a UDP socket */
static void datagram_socket(struct step *step)
{
	int family = number(step, 1) == 4 ? AF_INET : AF_INET6;

	done(step, step->taken = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
}

/* put FD BYTES: exactly these, in one call */
static void put_bytes(struct step *step)
{
	static __thread char data[LARGEST];
	size_t size = bytes_of(step, 2, data, sizeof(data));

	step->fd = number(step, 1);
	done(step, send(step->fd, data, size, MSG_NOSIGNAL));
}

const struct verb dns_verbs[] = {
	{"resolve", resolve},          {"questions", questions}, {"answers", answers},
	{"datagram", datagram_socket}, {"put", put_bytes},       {0},
};
