// SPDX-License-Identifier: MIT
/* Who acts: forks, threads, names, users, namespaces. Each new actor serves the channel that came with the step. */
#define _GNU_SOURCE
#include "traffic.h"

#include <fcntl.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* fork */
static void fork_actor(struct step *step)
{
	int channel = step->attached;
	pid_t child = fork();

	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(step->channel);
		serve(channel);
		_exit(0);
	}
	close(channel);
	done(step, child);
}

static void *thread_main(void *channel)
{
	serve((intptr_t)channel);
	return NULL;
}

/* thread */
static void thread_actor(struct step *step)
{
	pthread_t thread;

	done(step, pthread_create(&thread, NULL, thread_main, (void *)(intptr_t)step->attached));
	if (!step->result)
		pthread_detach(thread);
}

/* name NAME: of the calling thread */
static void set_name(struct step *step)
{
	done(step, prctl(PR_SET_NAME, text(step, 1)));
}

/* exec NAME: the same program anew, with the same channel and the descriptors that are kept */
static void exec_anew(struct step *step)
{
	char channel[16];

	snprintf(channel, sizeof(channel), "%d", step->channel);
	fcntl(step->channel, F_SETFD, 0);
	/* Whoever asked learns of it from the next answer: this one is given before the image is gone. */
	send(step->channel, "{}", 2, MSG_NOSIGNAL);
	done(step, execl("/proc/self/exe", "traffic", channel, text(step, 1), NULL));
}

/* keep FD: over an exec */
static void keep(struct step *step)
{
	done(step, fcntl(number(step, 1), F_SETFD, 0));
}

/* setuid UID */
static void set_user(struct step *step)
{
	uid_t uid = number(step, 1);

	done(step, setresuid(uid, uid, uid));
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* forgotten when credentials change */
}

/* unshare: a network namespace of its own, whose loopback is up */
static void unshare_network(struct step *step)
{
	struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd;

	if (!done(step, unshare(CLONE_NEWNET)))
		return;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	done(step, ioctl(fd, SIOCSIFFLAGS, &loopback));
	close(fd);
}

/* enter: the network namespace whose descriptor came along */
static void enter_network(struct step *step)
{
	done(step, setns(step->attached, CLONE_NEWNET));
	close(step->attached);
}

/* write PATH WORDS…: a setting of the actor's own namespace, or its cgroup */
static void write_words(struct step *step)
{
	int fd = open(text(step, 1), O_WRONLY | O_CLOEXEC);
	char words[256] = "";

	if (!done(step, fd))
		return;
	for (int at = 2; at < step->words; at++) {
		size_t used = strlen(words);

		snprintf(words + used, sizeof(words) - used, "%s ", step->word[at]);
	}
	done(step, write(fd, words, strlen(words)));
	close(fd);
}

/* run PROGRAM WORDS…: in the actor's namespace, what came along as its standard input; the result is its status */
static void run_program(struct step *step)
{
	int status = -1;
	pid_t child;

	signal(SIGCHLD, SIG_DFL);
	child = fork();
	if (!child) {
		dup2(step->attached, STDIN_FILENO);
		step->word[step->words] = NULL;
		execvp(step->word[1], step->word + 1);
		_exit(127);
	}
	done(step, waitpid(child, &status, 0));
	signal(SIGCHLD, SIG_IGN);
	close(step->attached);
	step->result = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* pause MILLISECONDS: the application thinks */
static void think(struct step *step)
{
	done(step, usleep(number(step, 1) * 1000));
}

/* hello */
static void hello(struct step *step)
{
	done(step, 0);
}

/* leave: this thread or process ends */
static void leave(struct step *step)
{
	step->leave = true;
	done(step, 0);
}

const struct verb process_verbs[] = {
	{"fork", fork_actor},
	{"thread", thread_actor},
	{"name", set_name},
	{"exec", exec_anew},
	{"keep", keep},
	{"setuid", set_user},
	{"unshare", unshare_network},
	{"enter", enter_network},
	{"write", write_words},
	{"run", run_program},
	{"pause", think},
	{"hello", hello},
	{"leave", leave},
	{0},
};
