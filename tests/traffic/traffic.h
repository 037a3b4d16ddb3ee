/* SPDX-License-Identifier: MIT */
/*
 * A process that makes TCP and UDP traffic as it is told, one step at a time, and tells what each step really did.
 *
 * It serves one connected AF_UNIX SOCK_SEQPACKET socket: a packet is a verb and its words, maybe with a descriptor;
 * the answer is one JSON object. Who did it, its result, errno by name, getsockname and getpeername, and both clocks
 * before and after, are in every answer: the truth that a tracer is held against.
 */
#ifndef TRAFFIC_H
#define TRAFFIC_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#define MAX_WORDS 16
#define CHUNK 65536

struct step {
	int words;
	char *word[MAX_WORDS + 1];
	int attached; /* the descriptor that came with it, or -1 */
	int channel;

	/* What the verb leaves for the answer. */
	long long result;
	int error;         /* an errno, 0: none */
	int fd;            /* whose addresses to tell, or -1 */
	int taken;         /* a new descriptor, or -1 */
	char extra[49152]; /* further members of the object, each with a leading comma */
	bool leave;        /* this thread or process ends after the answer */
};

struct verb {
	const char *name;
	void (*run)(struct step *step);
};

extern const struct verb tcp_verbs[], byte_verbs[], process_verbs[], volume_verbs[], name_verbs[], dns_verbs[],
	mount_verbs[], datagram_verbs[], mayfly_verbs[], swap_verbs[];

void serve(int channel);

/* What the program does as `traffic mayfly WORDS…`: it is no actor then. */
int mayfly(char **words);

/* Words of a step: a missing or malformed one ends the process with a message, it is a mistake in the test. */
const char *text(const struct step *step, int at);
long long number(const struct step *step, int at);
bool has(const struct step *step, const char *option); /* given as a bare word behind the verb's own */
socklen_t address(const struct step *step, int at, struct sockaddr_storage *to); /* ADDR PORT */

/* A word as bytes: hex:6162 stands for what a word cannot hold. A NUL follows; the size is without it. */
size_t bytes_of(const struct step *step, int at, char *to, size_t room);

/* The name, with the number in the place of its #, if it has one. */
void numbered(char *to, size_t room, const char *name, long number);

/* More for the answer: text as it is, and an address as the next element of a list that is open. */
void add_text(struct step *step, const char *text);
void add_address(struct step *step, int family, const void *raw);

/* result = value; a negative one is an error, whose errno is kept. */
bool done(struct step *step, long long value);

const char *error_name(int error);

/* One operation through io_uring, as read(2) would return it: -1 and errno. */
struct io_uring_sqe;
long uring(const struct io_uring_sqe *entry);
long uring_connect(int fd, const struct sockaddr *to, socklen_t size, bool async);
long uring_accept(int fd, bool async);
long uring_send(int fd, const void *data, size_t size, bool async);
long uring_recv(int fd, void *data, size_t size, bool async);

#endif
