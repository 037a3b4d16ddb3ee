// SPDX-License-Identifier: MIT
/* Names asked of the C library. The result is its own code; the answer lists every address, in its order. */
#define _GNU_SOURCE
#include "traffic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LONGEST_NAME 8192

size_t bytes_of(const struct step *step, int at, char *to, size_t room)
{
	const char *word = text(step, at);
	size_t size = 0;

	if (strncmp(word, "hex:", 4))
		return snprintf(to, room, "%s", word);
	for (word += 4; word[0] && word[1] && size + 1 < room; word += 2) {
		char digits[3] = {word[0], word[1], 0};

		to[size++] = strtoul(digits, NULL, 16);
	}
	to[size] = 0;
	return size;
}

void numbered(char *to, size_t room, const char *name, long number)
{
	const char *mark = strchr(name, '#');

	if (mark)
		snprintf(to, room, "%.*s%ld%s", (int)(mark - name), name, number, mark + 1);
	else
		snprintf(to, room, "%s", name);
}

void add_text(struct step *step, const char *text)
{
	size_t used = strlen(step->extra);

	if (used + strlen(text) >= sizeof(step->extra))
		abort();
	strcpy(step->extra + used, text);
}

void add_address(struct step *step, int family, const void *raw)
{
	char addr[INET6_ADDRSTRLEN], quoted[sizeof(addr) + 4];
	size_t used = strlen(step->extra);

	inet_ntop(family, raw, addr, sizeof(addr));
	snprintf(quoted, sizeof(quoted), "%s\"%s\"", step->extra[used - 1] == '[' ? "" : ",", addr);
	add_text(step, quoted);
}

static int family_of(const struct step *step, int at)
{
	long family = number(step, at);

	return family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC;
}

static void tell_addresses(struct step *step, const struct addrinfo *found)
{
	add_text(step, ",\"addresses\":[");
	for (; found; found = found->ai_next) {
		struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)found->ai_addr;
		struct sockaddr_in *v4 = (struct sockaddr_in *)found->ai_addr;

		add_address(step, found->ai_family,
			    found->ai_family == AF_INET ? (void *)&v4->sin_addr : (void *)&v6->sin6_addr);
	}
	add_text(step, "]");
}

static void ask(struct step *step, const char *name, const char *service)
{
	static const int types[] = {0, SOCK_STREAM, SOCK_DGRAM};
	struct addrinfo wish = {.ai_family = family_of(step, 2), .ai_socktype = types[number(step, 3)]}, *found = NULL;

	if (has(step, "canonical"))
		wish.ai_flags |= AI_CANONNAME;
	if (has(step, "passive"))
		wish.ai_flags |= AI_PASSIVE;
	step->result = getaddrinfo(name, service, &wish, &found);
	tell_addresses(step, step->result ? NULL : found);
	if (!step->result)
		freeaddrinfo(found);
}

/* lookup NAME FAMILY TYPE [canonical]: getaddrinfo; 0 stands for any family, any type */
static void lookup(struct step *step)
{
	static __thread char name[LONGEST_NAME];

	bytes_of(step, 1, name, sizeof(name));
	ask(step, name, NULL);
}

/* lookup-null SERVICE FAMILY TYPE [passive]: getaddrinfo without a name */
static void lookup_null(struct step *step)
{
	ask(step, NULL, text(step, 1));
}

/* lookup-edge NAME FAMILY TYPE: the name's NUL is the last byte before memory that is not there */
static void lookup_edge(struct step *step)
{
	size_t page = sysconf(_SC_PAGESIZE), room = LONGEST_NAME + page;
	char *memory = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static __thread char name[LONGEST_NAME];
	size_t size = bytes_of(step, 1, name, sizeof(name));

	if (memory == MAP_FAILED || munmap(memory + room, page))
		abort();
	memcpy(memory + room - size - 1, name, size + 1);
	ask(step, memory + room - size - 1, NULL);
	munmap(memory, room);
}

/* hostbyname NAME FAMILY plain|2|r|2r: the result is h_errno, 0 for success */
static void host_by_name(struct step *step)
{
	static __thread char name[LONGEST_NAME], room[65536];
	int family = family_of(step, 2), error = 0;
	struct hostent *found = NULL, place;
	const char *how = text(step, 3);

	bytes_of(step, 1, name, sizeof(name));
	if (!strcmp(how, "r"))
		gethostbyname_r(name, &place, room, sizeof(room), &found, &error);
	else if (!strcmp(how, "2r"))
		gethostbyname2_r(name, family, &place, room, sizeof(room), &found, &error);
	else {
		found = !strcmp(how, "2") ? gethostbyname2(name, family) : gethostbyname(name);
		error = h_errno;
	}
	step->result = found ? 0 : error;
	add_text(step, ",\"addresses\":[");
	for (char **each = found ? found->h_addr_list : NULL; each && *each; each++)
		add_address(step, found->h_addrtype, *each);
	add_text(step, "]");
}

/* lookups COUNT NAME FAMILY: getaddrinfo so often, # being the number; the result is how many found something */
static void lookups(struct step *step)
{
	struct addrinfo wish = {.ai_family = family_of(step, 3), .ai_socktype = SOCK_STREAM}, *found;
	long count = number(step, 1), good = 0;
	char name[256];

	for (long at = 0; at < count; at++) {
		numbered(name, sizeof(name), text(step, 2), at);
		if (!getaddrinfo(name, NULL, &wish, &found)) {
			freeaddrinfo(found);
			good++;
		}
	}
	done(step, good);
}

/* calls COUNT NAME PORT: each looks the name up, connects to the first address, and closes when the peer has */
static void calls(struct step *step)
{
	struct addrinfo wish = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
	long count = number(step, 1), good = 0;
	char byte;

	for (; good < count; good++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		errno = EADDRNOTAVAIL;
		if (getaddrinfo(text(step, 2), text(step, 3), &wish, &found)) {
			done(step, -1);
			break;
		}
		if (!done(step, connect(fd, found->ai_addr, found->ai_addrlen)))
			break;
		freeaddrinfo(found);
		while (recv(fd, &byte, 1, 0) > 0)
			;
		close(fd);
	}
	step->result = good;
}

const struct verb name_verbs[] = {
	{"lookup", lookup},
	{"lookup-null", lookup_null},
	{"lookup-edge", lookup_edge},
	{"hostbyname", host_by_name},
	{"lookups", lookups},
	{"calls", calls},
	{0},
};
