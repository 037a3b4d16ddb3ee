/*
 * Records as JSON lines: byte for byte what outputs/json_lines.py makes of the events that decode.py reads, at a
 * twentieth of the price. The words come from there too. What is rare, a name to be escaped or a number that has no
 * word, is left to Python: the writing stops before that record.
 */
#include "addresses.h"
#include "owner_pieces.h"

#define LONGEST_LINE (1024 + LONGEST_PIECE) /* all else, and what put_word() writes beyond, is 800 bytes */
#define WORD 64
#define SECOND 1000000000

typedef struct {
	uint8_t size;
	char text[WORD - 1]; /* a ready piece: ,"owner":"accept" */
} word;

typedef struct {
	const word *words;
	uint32_t count;
} table;

typedef struct {
	table kinds, protocols, directions, owners, ends, states, errors;
	int64_t second; /* the one that `date` shows */
	char date[20];
	size_t read; /* bytes of whole records */
	size_t records;
	size_t written;
	int strange;          /* the next record is Python's */
	uint32_t left;        /* bit n: records of kind n are Python's */
	const uint8_t *named; /* a bit for each hash of an address that may have a name */
	pieces *of_owners;    /* 0: nothing is told of them */
} json;

struct any_event {
	struct header header;
	struct conn conn;
};

/* Text under a key, both known when this is compiled. */
#define PUT(at, text) (memcpy(at, text, sizeof(text) - 1), (at) + sizeof(text) - 1)

static char *put_word(char *at, table from, uint32_t number)
{
	memcpy(at, from.words[number].text, WORD - 1); /* all of it: a fixed size is faster than the right one */
	return at + from.words[number].size;
}

static char *put_number(char *at, uint64_t number)
{
	char digits[20];
	int first = 20;

	do {
		digits[--first] = '0' + number % 10;
		number /= 10;
	} while (number);
	memcpy(at, digits + first, 20 - first);
	return at + 20 - first;
}

static char *put_hex(char *at, uint64_t number)
{
	for (int shift = 60; shift >= 0; shift -= 4)
		*at++ = "0123456789abcdef"[number >> shift & 15];
	return at;
}

static char *put_ipv4(char *at, const uint8_t *bytes)
{
	for (int i = 0; i < 4; i++) {
		if (i)
			*at++ = '.';
		at = put_number(at, bytes[i]);
	}
	return at;
}

/* RFC 5952: the first longest run of two or more zeros is "::". Never with an IPv4 address at the end. */
static char *put_ipv6(char *at, const uint8_t *bytes)
{
	int groups[8], start = 8, longest = 1;

	for (int i = 0, run = 0; i < 8; i++) {
		groups[i] = bytes[2 * i] << 8 | bytes[2 * i + 1];
		run = groups[i] ? 0 : run + 1;
		if (run > longest) {
			longest = run;
			start = i + 1 - run;
		}
	}
	for (int i = 0; i < 8; i++) {
		if (i == start) {
			at = PUT(at, "::");
			i += longest - 1;
			continue;
		}
		if (i && !(start < 8 && i == start + longest))
			*at++ = ':';
		for (int shift = 12, led = 0; shift >= 0; shift -= 4) {
			int digit = groups[i] >> shift & 15;

			led |= digit || !shift;
			if (led)
				*at++ = "0123456789abcdef"[digit];
		}
	}
	return at;
}

static int is_mapped(const uint8_t *address)
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	return !memcmp(address, prefix, sizeof(prefix));
}

static int is_known(const uint8_t *address)
{
	static const uint8_t nothing[16];

	return memcmp(address, nothing, 16) && !(is_mapped(address) && !memcmp(address + 12, nothing, 4));
}

static char *put_address(char *at, const uint8_t *address)
{
	at = is_mapped(address) ? put_ipv4(at, address + 12) : put_ipv6(at, address);
	*at++ = '"';
	return at;
}

/* Nor where it really goes, which is known of some whose direction is not. */
static int may_have_a_name(const json *j, const struct conn *conn)
{
	uint32_t bit;

	if (!j->named || conn->direction == DIRECTION_IN)
		return 0;
	bit = address_bit((const char *)conn->remote_addr);
	return j->named[bit >> 3] >> (bit & 7) & 1;
}

/* -1 for a name that needs escaping. */
static int length_of(const char *name)
{
	int length = 0;

	for (; length < 16 && name[length]; length++) {
		unsigned char c = name[length];

		if (c < ' ' || c > '~' || c == '"' || c == '\\')
			return -1;
	}
	return length;
}

static char *put_time(json *j, char *at, int64_t time)
{
	int64_t rest = time - j->second;

	if (!*j->date || rest < 0 || rest >= SECOND) {
		time_t seconds = time / SECOND;
		struct tm parts;

		gmtime_r(&seconds, &parts);
		strftime(j->date, sizeof(j->date), "%Y-%m-%dT%H:%M:%S", &parts);
		rest = time % SECOND;
		j->second = time - rest;
	}
	memcpy(at, j->date, 19);
	at[19] = '.';
	for (int i = 28; i > 19; i--, rest /= 10)
		at[i] = '0' + rest % 10;
	return PUT(at + 29, "Z\"");
}

#define PUT_NUMBER(at, key, number) put_number(PUT(at, ",\"" key "\":"), number)
#define PUT_KNOWN(at, key, number) ((number) ? PUT_NUMBER(at, key, number) : (at))
#define PUT_TRUE(at, key, condition) ((condition) ? PUT(at, ",\"" key "\":true") : (at))
#define PUT_ADDRESS(at, key, address) (is_known(address) ? put_address(PUT(at, ",\"" key "\":\""), address) : (at))
#define PUT_NAME(at, key, name, length) ((length) ? put_name(PUT(at, ",\"" key "\":\""), name, length) : (at))

static char *put_name(char *at, const char *name, int length)
{
	memcpy(at, name, 16);
	at[length] = '"';
	return at + length + 1;
}

static char *put_totals(char *at, const struct conn *conn, const struct totals *totals)
{
	at = PUT_NUMBER(at, "tx_bytes", totals->tx_bytes);
	at = PUT_NUMBER(at, "tx_acked", totals->tx_acked);
	at = PUT_NUMBER(at, "rx_bytes", totals->rx_bytes);
	if (conn->protocol != PROTO_MPTCP) /* its subflows' events count them */
		at = PUT_NUMBER(at, "retransmits", totals->retransmits);
	return PUT_KNOWN(at, "rtt_ns", totals->rtt);
}

/* Has every number its word? 0 also for a kind that is not known, or one cut short. */
static int has_words(const json *j, const struct any_event *event, size_t size)
{
	static const size_t sizes[] = {
		[KIND_CONNECT] = sizeof(struct connect_event), [KIND_ESTABLISHED] = sizeof(struct established_event),
		[KIND_FAILED] = sizeof(struct failed_event),   [KIND_ACCEPT] = sizeof(struct accept_event),
		[KIND_CLOSE] = sizeof(struct close_event),     [KIND_EXISTING] = sizeof(struct existing_event),
	};
	const struct conn *conn = &event->conn;
	unsigned int kind = event->header.kind, error;

	if (kind >= sizeof(sizes) / sizeof(*sizes) || !sizes[kind] || size < sizes[kind] || kind >= j->kinds.count)
		return 0;
	if (conn->protocol >= j->protocols.count || conn->direction >= j->directions.count ||
	    conn->owner >= j->owners.count)
		return 0;
	switch (kind) {
	case KIND_FAILED:
		error = ((const struct failed_event *)event)->error;
		return error < j->errors.count || error == ERROR_UNKNOWN;
	case KIND_CLOSE:
		return ((const struct close_event *)event)->totals.ended < j->ends.count;
	case KIND_EXISTING:
		return ((const struct existing_event *)event)->totals.state < j->states.count;
	}
	return 1;
}

/* What a kind of event adds to its connection's fields. */
static char *put_own(const json *j, char *at, const struct any_event *any)
{
	const union {
		struct established_event established;
		struct failed_event failed;
		struct accept_event accept;
		struct close_event close;
		struct existing_event existing;
	} *event = (const void *)any;
	int fastopen = any->conn.flags & CONN_FASTOPEN;

	switch (any->header.kind) {
	case KIND_CONNECT:
		return PUT_TRUE(at, "fastopen", fastopen);
	case KIND_ESTABLISHED:
		at = PUT_KNOWN(at, "latency_ns", event->established.latency);
		at = PUT_NUMBER(at, "syn_retransmits", event->established.syn_retransmits);
		return PUT_TRUE(at, "fastopen", fastopen);
	case KIND_FAILED:
		if (event->failed.error != ERROR_UNKNOWN)
			at = put_word(at, j->errors, event->failed.error);
		at = PUT_KNOWN(at, "latency_ns", event->failed.latency);
		return PUT_NUMBER(at, "syn_retransmits", event->failed.syn_retransmits);
	case KIND_ACCEPT:
		return PUT_KNOWN(at, "wait_ns", event->accept.wait);
	case KIND_CLOSE:
		at = PUT_KNOWN(at, "duration_ns", event->close.duration);
		at = put_totals(at, &any->conn, &event->close.totals);
		return put_word(at, j->ends, event->close.totals.ended);
	default:
		at = put_word(at, j->states, event->existing.totals.state);
		return put_totals(at, &any->conn, &event->existing.totals);
	}
}

/* The end of the line, or 0 if this event is Python's. */
static char *put_line(json *j, char *at, const struct any_event *event, size_t size, int64_t offset)
{
	const struct conn *conn = &event->conn;
	const piece *who = 0;
	int comm, thread;
	int64_t time;

	if (size < sizeof(*event) || !has_words(j, event, size) || may_have_a_name(j, conn))
		return 0;
	if (__builtin_add_overflow(event->header.time, offset, &time) || time < 0)
		return 0;
	if (j->of_owners && conn->process) {
		who = piece_of(j->of_owners, conn->process, conn->cgroup);
		if (!who->process)
			return 0;
	}
	comm = conn->pid ? length_of(conn->comm) : 0;
	thread = conn->tid != conn->pid ? length_of(conn->thread) : 0;
	if (comm < 0 || thread < 0)
		return 0;

	at = put_word(at, j->kinds, event->header.kind);
	at = put_time(j, at, time);
	at = put_hex(PUT(at, ",\"conn\":\""), conn->id);
	*at++ = '"';
	at = put_word(at, j->protocols, conn->protocol);
	at = put_word(at, j->directions, conn->direction);
	at = PUT_ADDRESS(at, "local_addr", conn->local_addr);
	at = PUT_KNOWN(at, "local_port", conn->local_port);
	at = PUT_ADDRESS(at, "remote_addr", conn->remote_addr);
	at = PUT_KNOWN(at, "remote_port", conn->remote_port);
	at = PUT_TRUE(at, "v4_mapped", conn->flags & CONN_V4_MAPPED);
	at = PUT_KNOWN(at, "netns", conn->netns);
	at = PUT_KNOWN(at, "pid", conn->pid);
	at = PUT_NAME(at, "comm", conn->comm, comm);
	if (conn->pid)
		at = PUT_NUMBER(at, "uid", conn->uid);
	if (conn->tid != conn->pid)
		at = PUT_NUMBER(at, "tid", conn->tid);
	at = PUT_NAME(at, "thread", conn->thread, thread);
	at = put_word(at, j->owners, conn->owner);
	at = PUT_KNOWN(at, "cgroup", conn->cgroup);
	if (who) {
		memcpy(at, j->of_owners->text + who->at, who->size);
		at += who->size;
	}
	at = PUT_TRUE(at, "pre_existing", conn->flags & CONN_PRE_EXISTING);
	if (conn->subflow_of) {
		at = put_hex(PUT(at, ",\"subflow_of\":\""), conn->subflow_of);
		*at++ = '"';
	}
	at = PUT_TRUE(at, "partial", conn->flags & CONN_PARTIAL);
	at = put_own(j, at, event);
	return PUT(at, "}\n");
}

/* Of a record that ends behind the last one's end, or is of a kind that there cannot be, Python says what is wrong. */
static int is_ours(const json *j, const struct any_event *event, size_t left)
{
	return left >= sizeof(event->header) && event->header.words * 8UL <= left && event->header.kind < 32 &&
	       !(j->left >> event->header.kind & 1);
}

/* As many of the records as have room, up to one that is Python's. */
static void json_lines(json *j, const void *records, size_t size, int64_t offset, char *out, size_t room)
{
	j->read = j->written = j->records = 0;
	j->strange = 0;
	while (j->read < size && room - j->written >= LONGEST_LINE) {
		const struct any_event *event = (const void *)((const char *)records + j->read);
		char *end = is_ours(j, event, size - j->read)
				    ? put_line(j, out + j->written, event, event->header.words * 8, offset)
				    : NULL;

		if (!end) {
			j->strange = 1;
			break;
		}
		j->written = end - out;
		j->read += event->header.words * 8;
		j->records++;
	}
}
