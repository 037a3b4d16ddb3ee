// SPDX-License-Identifier: MIT
/* Processes that connect once and are gone within a millisecond, each another way; each writes down who it was. */
#define _GNU_SOURCE
#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAMS 8

enum life {
	FORKED,   /* runs what its parent runs, under a name of its own */
	REUSED,   /* another program, and the number of a process that is just gone */
	VFORKED,  /* another program */
	ANOTHERS, /* another program, as another user */
	THREADED, /* another program, of which a thread connects */
	RENEWED,  /* another program, that became another one before */
	LIVES,
};

struct fly {
	uint32_t pid, tid, uid;
	uint16_t port;
	uint8_t program, life;
	char comm[16], thread[16];
};

static struct fly *log_of(int fd, long flies)
{
	struct fly *log = mmap(NULL, flies * sizeof(*log), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (log == MAP_FAILED)
		abort();
	return log;
}

static void fly(struct fly *mine, const struct sockaddr_in *to)
{
	struct sockaddr_in local = {0};
	socklen_t size = sizeof(local);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	mine->pid = getpid();
	mine->tid = gettid();
	mine->uid = geteuid();
	prctl(PR_GET_NAME, mine->thread);
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)))
		_exit(3);
	getsockname(fd, (struct sockaddr *)&local, &size);
	mine->port = ntohs(local.sin_port);
}

struct wing {
	struct fly *mine;
	const struct sockaddr_in *to;
	long index;
};

static void *beat(void *argument)
{
	struct wing *wing = argument;
	char name[16];

	snprintf(name, sizeof(name), "wing-%ld", wing->index);
	prctl(PR_SET_NAME, name);
	fly(wing->mine, wing->to);
	return NULL;
}

/* The program: mayfly LIFE INDEX COUNT LOG ADDR PORT NEXT */
int mayfly(char **words)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(words[5]))};
	long index = atol(words[1]), count = atol(words[2]);
	enum life life = atoi(words[0]);
	struct fly *mine = log_of(atoi(words[3]), count) + index;
	struct wing wing = {mine, &to, index};
	pthread_t thread;

	if (life == RENEWED && *words[6]) {
		words[-2] = words[6];
		words[6] = "";
		execv(words[-2], words - 2);
		return 4;
	}
	inet_pton(AF_INET, words[4], &to.sin_addr);
	if (life == ANOTHERS && setresuid(20000 + index, 20000 + index, 20000 + index))
		return 5;
	prctl(PR_GET_NAME, mine->comm);
	if (life != THREADED) {
		fly(mine, &to);
	} else {
		if (pthread_create(&thread, NULL, beat, &wing))
			return 6;
		pthread_join(thread, NULL);
	}
	return 0;
}

/* A child with this number, if nobody else has it. */
static pid_t fork_as(pid_t number, bool *reused)
{
	struct clone_args how = {.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&number, .set_tid_size = 1};
	pid_t child = number ? syscall(SYS_clone3, &how, sizeof(how)) : -1;

	*reused = child >= 0;
	return child >= 0 ? child : fork();
}

/* mayflies COUNT ADDR PORT FOLDER LOG: programs are FOLDER/p0 to p7; the result is how many lived */
static void mayflies(struct step *step)
{
	long count = number(step, 1), lived = 0, reused = 0;
	struct sockaddr_storage to;
	int log_fd = open(text(step, 5), O_RDWR), status;
	char words[4][24], path[PROGRAMS][128], extra[64];
	struct fly *log;
	pid_t last = 0;

	address(step, 2, &to);
	if (log_fd < 0 || ftruncate(log_fd, count * sizeof(*log)))
		abort();
	log = log_of(log_fd, count);
	for (int at = 0; at < PROGRAMS; at++)
		snprintf(path[at], sizeof(path[at]), "%s/p%d", text(step, 4), at);
	signal(SIGCHLD, SIG_DFL);
	for (long at = 0; at < count; at++) {
		struct fly *its = log + at;
		enum life life = its->life = at % LIVES;
		int first = at * 5 % PROGRAMS, second = (first + 3) % PROGRAMS;
		char *argv[] = {path[first],   "mayfly",      words[0],
				words[1],      words[2],      words[3],
				step->word[2], step->word[3], life == RENEWED ? path[second] : "",
				NULL};
		bool again = false;
		pid_t child;

		its->program = life == RENEWED ? second : first;
		snprintf(words[0], sizeof(words[0]), "%d", life);
		snprintf(words[1], sizeof(words[1]), "%ld", at);
		snprintf(words[2], sizeof(words[2]), "%ld", count);
		snprintf(words[3], sizeof(words[3]), "%d", log_fd);
		child = life == VFORKED ? vfork() : life == REUSED ? fork_as(last, &again) : fork();
		if (!child) {
			if (life == FORKED) {
				snprintf(its->comm, sizeof(its->comm), "fly-%ld", at);
				prctl(PR_SET_NAME, its->comm);
				fly(its, (struct sockaddr_in *)&to);
				_exit(0);
			}
			execv(argv[0], argv);
			_exit(7);
		}
		if (!done(step, child) || waitpid(child, &status, 0) != child || status)
			break;
		reused += again;
		last = child;
		lived++;
	}
	signal(SIGCHLD, SIG_IGN);
	munmap(log, count * sizeof(*log));
	close(log_fd);
	snprintf(extra, sizeof(extra), ",\"reused\":%ld,\"status\":%d", reused, lived < count ? status : 0);
	add_text(step, extra);
	done(step, lived);
}

/* take FD COUNT: accepts so many, one after the other, and closes when the peer did */
static void take(struct step *step)
{
	long count = number(step, 2), taken = 0;

	for (; taken < count; taken++) {
		int fd = accept4(number(step, 1), NULL, NULL, SOCK_CLOEXEC);
		char byte;

		if (!done(step, fd))
			return;
		while (recv(fd, &byte, 1, 0) > 0)
			;
		close(fd);
	}
	done(step, taken);
}

const struct verb mayfly_verbs[] = {{"mayflies", mayflies}, {"take", take}, {0}};
