// SPDX-License-Identifier: MIT
/* Sockets from birth to death: everything but the bytes. */
#define _GNU_SOURCE
#include "traffic.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#define STATE_CLOSE 7 /* what tcpi_state says; only <netinet/tcp.h> has it, which clashes */

/* socket 4|6 [nonblock] [mptcp] */
static void make_socket(struct step *step)
{
	int family = number(step, 1) == 4 ? AF_INET : AF_INET6;
	int type = SOCK_STREAM | SOCK_CLOEXEC | (has(step, "nonblock") ? SOCK_NONBLOCK : 0);

	done(step, step->taken = socket(family, type, has(step, "mptcp") ? IPPROTO_MPTCP : 0));
}

/* raw FAMILY PROTOCOL, both as numbers */
static void make_raw_socket(struct step *step)
{
	done(step, step->taken = socket(number(step, 1), SOCK_RAW | SOCK_CLOEXEC, number(step, 2)));
}

/* bind FD ADDR PORT */
static void bind_to(struct step *step)
{
	struct sockaddr_storage to;
	socklen_t size = address(step, 2, &to);

	step->fd = number(step, 1);
	done(step, bind(step->fd, (struct sockaddr *)&to, size));
}

/* listen FD BACKLOG */
static void listen_on(struct step *step)
{
	step->fd = number(step, 1);
	done(step, listen(step->fd, number(step, 2)));
}

/* connect FD ADDR PORT [uring|uring-async] */
static void connect_to(struct step *step)
{
	struct sockaddr_storage to;
	socklen_t size = address(step, 2, &to);

	step->fd = number(step, 1);
	if (has(step, "uring") || has(step, "uring-async"))
		done(step, uring_connect(step->fd, (struct sockaddr *)&to, size, has(step, "uring-async")));
	else
		done(step, connect(step->fd, (struct sockaddr *)&to, size));
}

/* outcome FD: of a connect() that said EINPROGRESS */
static void outcome(struct step *step)
{
	struct pollfd wait = {.fd = number(step, 1), .events = POLLOUT};
	int error = 0;
	socklen_t size = sizeof(error);

	step->fd = wait.fd;
	if (!done(step, poll(&wait, 1, -1)) || !done(step, getsockopt(step->fd, SOL_SOCKET, SO_ERROR, &error, &size)))
		return;
	errno = error;
	done(step, error ? -1 : 0);
}

/* accept FD [null] [uring|uring-async] */
static void accept_one(struct step *step)
{
	struct sockaddr_storage from;
	socklen_t size = sizeof(from);
	int fd = number(step, 1);

	if (has(step, "uring") || has(step, "uring-async"))
		step->taken = uring_accept(fd, has(step, "uring-async"));
	else if (has(step, "null"))
		step->taken = accept(fd, NULL, NULL);
	else
		step->taken = accept4(fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC);
	done(step, step->fd = step->taken);
}

static const struct {
	const char *name;
	int level, option;
} options[] = {
	{"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR},
	{"SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT},
	{"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF},
	{"SO_SNDBUF", SOL_SOCKET, SO_SNDBUF},
	{"SO_BROADCAST", SOL_SOCKET, SO_BROADCAST},
	{"IP_RECVERR", IPPROTO_IP, IP_RECVERR},
	{"UDP_CORK", IPPROTO_UDP, UDP_CORK},
	{"UDP_SEGMENT", IPPROTO_UDP, UDP_SEGMENT},
	{"UDP_GRO", IPPROTO_UDP, UDP_GRO},
	{"IPV6_V6ONLY", IPPROTO_IPV6, IPV6_V6ONLY},
	{"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY},
	{"TCP_DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT},
	{"TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT},
	{"TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT},
	{"TCP_FASTOPEN", IPPROTO_TCP, TCP_FASTOPEN},
	{"TCP_FASTOPEN_CONNECT", IPPROTO_TCP, TCP_FASTOPEN_CONNECT},
	{0},
};

/* set FD OPTION VALUE, or set FD SO_LINGER SECONDS */
static void set_option(struct step *step)
{
	struct linger linger = {.l_onoff = 1, .l_linger = number(step, 3)};
	int fd = number(step, 1), value = number(step, 3);
	const char *name = text(step, 2);

	errno = EINVAL;
	done(step, -1);
	if (!strcmp(name, "SO_LINGER"))
		done(step, setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	for (size_t at = 0; options[at].name; at++)
		if (!strcmp(options[at].name, name))
			done(step, setsockopt(fd, options[at].level, options[at].option, &value, sizeof(value)));
}

/* shutdown FD rd|wr|rdwr */
static void shut(struct step *step)
{
	const char *how = text(step, 2);

	step->fd = number(step, 1);
	done(step, shutdown(step->fd, !strcmp(how, "rd") ? SHUT_RD : !strcmp(how, "wr") ? SHUT_WR : SHUT_RDWR));
}

/* disconnect FD: connect() to AF_UNSPEC */
static void disconnect(struct step *step)
{
	struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

	done(step, connect(number(step, 1), &nowhere, sizeof(nowhere)));
}

/* close FD */
static void close_it(struct step *step)
{
	done(step, close(number(step, 1)));
}

/* info FD: what the kernel itself counts */
static void info(struct step *step)
{
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);
	int queued = 0;

	step->fd = number(step, 1);
	if (!done(step, getsockopt(step->fd, IPPROTO_TCP, TCP_INFO, &info, &size)))
		return;
	ioctl(step->fd, SIOCOUTQ, &queued);
	snprintf(step->extra, sizeof(step->extra),
		 ",\"state\":%u,\"rtt\":%u,\"bytes_acked\":%llu,\"bytes_received\":%llu,\"bytes_sent\":%llu,\"bytes_"
		 "retrans\":%llu,"
		 "\"total_retrans\":%u,\"timeouts\":%u,\"unacked\":%u,\"notsent\":%u,\"options\":%u,\"queued\":%d",
		 info.tcpi_state, info.tcpi_rtt, info.tcpi_bytes_acked, info.tcpi_bytes_received, info.tcpi_bytes_sent,
		 info.tcpi_bytes_retrans, info.tcpi_total_retrans, info.tcpi_retransmits, info.tcpi_unacked,
		 info.tcpi_notsent_bytes, info.tcpi_options, queued);
}

/* Until the kernel has sent something again: nothing tells, so ask again and again. */
static void await_resent(struct step *step)
{
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);

	do
		usleep(5000);
	while (done(step, getsockopt(step->fd, IPPROTO_TCP, TCP_INFO, &info, &size)) && !info.tcpi_total_retrans &&
	       info.tcpi_state != STATE_CLOSE);
}

/* await FD in|end|resent: something to read; the peer is done (FIN or RST); a segment was sent again */
static void await(struct step *step)
{
	const char *what = text(step, 2);
	struct pollfd wait = {.fd = number(step, 1), .events = strcmp(what, "in") ? POLLRDHUP : POLLIN};

	step->fd = wait.fd;
	if (strcmp(what, "resent"))
		done(step, poll(&wait, 1, -1));
	else
		await_resent(step);
}

const struct verb tcp_verbs[] = {
	{"socket", make_socket}, {"raw", make_raw_socket},
	{"bind", bind_to},       {"listen", listen_on},
	{"connect", connect_to}, {"outcome", outcome},
	{"accept", accept_one},  {"set", set_option},
	{"shutdown", shut},      {"disconnect", disconnect},
	{"close", close_it},     {"info", info},
	{"await", await},        {0},
};
