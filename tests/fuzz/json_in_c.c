// SPDX-License-Identifier: MIT
/*
 * The C path to JSON lines over any bytes, for a compiler's sanitizers: nothing outside of the records is read, nothing
 * outside of the room is written. With libFuzzer (-DLIBFUZZER), or over inputs from standard input, each behind its
 * size. words.h has the words, which are written in Python.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <linux/types.h>
#include "events.h"

#include "json_lines.c"
#include "words.h"

#define LONGEST_INPUT (1 << 16)

enum how {
	AS_THE_KERNEL_DOES = 1, /* each record has the size of its kind */
	WITH_NAMES = 2,
	WITH_OWNERS = 4,
	LITTLE_ROOM = 8,
};

static const uint8_t sizes[] = {
	[KIND_CONNECT] = sizeof(struct connect_event), [KIND_ESTABLISHED] = sizeof(struct established_event),
	[KIND_FAILED] = sizeof(struct failed_event),   [KIND_ACCEPT] = sizeof(struct accept_event),
	[KIND_CLOSE] = sizeof(struct close_event),     [KIND_EXISTING] = sizeof(struct existing_event),
};

/* How much of it is whole records. */
static size_t put_right(uint8_t *records, size_t size)
{
	size_t at = 0;

	while (size - at >= sizeof(struct any_event)) {
		struct header *head = (struct header *)(records + at);
		size_t whole;

		head->kind %= sizeof(sizes);
		whole = sizes[head->kind] ? sizes[head->kind] : sizeof(struct any_event);
		if (whole > size - at)
			break;
		head->words = whole / 8;
		at += whole;
	}
	return at;
}

static void know_owners(pieces *all, const uint8_t *records, size_t size)
{
	static char text[LONGEST_PIECE + 1];
	size_t at = 0;

	memset(text, 'x', sizeof(text));
	while (size - at >= sizeof(struct any_event)) {
		const struct any_event *event = (const void *)(records + at);

		piece_add(all, event->conn.process, event->conn.cgroup, text,
			  (event->header.lost & 8191) % sizeof(text));
		at += event->header.words ? (size_t)event->header.words * 8 : sizeof(*event);
		if (at > size)
			break;
	}
}

static void over(const uint8_t *data, size_t size)
{
	static uint8_t named[1 << 13];
	static pieces *of_owners;
	size_t room, at = 0;
	uint8_t *records;
	int64_t offset;
	uint8_t how;
	char *out;
	json j = {ALL_WORDS};

	if (size < 16)
		return;
	how = data[0];
	j.left = data[1] << 8 | data[2];
	memcpy(&offset, data + 8, sizeof(offset));
	size -= 16;
	records = malloc(size ? size : 1); /* to the byte: what is read behind it is seen */
	memcpy(records, data + 16, size);
	if (how & AS_THE_KERNEL_DOES)
		size = put_right(records, size);
	if (how & WITH_NAMES) {
		memset(named, data[3], sizeof(named));
		j.named = named;
	}
	if (how & WITH_OWNERS) {
		if (!of_owners)
			of_owners = calloc(1, sizeof(*of_owners));
		j.of_owners = of_owners;
		know_owners(of_owners, records, size);
		if (data[4] & 1)
			pieces_forget(of_owners);
	}
	room = how & LITTLE_ROOM ? LONGEST_LINE + data[5] : LONGEST_LINE * 2;
	out = malloc(room);
	while (at < size) {
		json_lines(&j, records + at, size - at, offset, out, room);
		if (j.read > size - at || j.written > room || (!j.read && !j.strange))
			abort();
		for (size_t each = 0; each < j.written; each++)
			if ((unsigned char)out[each] < ' ' && out[each] != '\n')
				abort();
		at += j.read;
		if (j.strange) {
			if (size - at < sizeof(struct header) || !((struct header *)(records + at))->words)
				break;
			at += ((struct header *)(records + at))->words * 8;
		}
	}
	if (of_owners && of_owners->known)
		pieces_forget(of_owners); /* the next input shall find none */
	free(out);
	free(records);
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	over(data, size);
	return 0;
}
#else
int main(void)
{
	static uint8_t input[LONGEST_INPUT];
	uint32_t size;

	while (fread(&size, sizeof(size), 1, stdin) == 1) {
		if (size > sizeof(input) || fread(input, 1, size, stdin) != size)
			return 2;
		over(input, size);
	}
	return 0;
}
#endif
