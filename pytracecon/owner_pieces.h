/* What is known of owners, as ready pieces of JSON lines: ,"exe":"/usr/bin/curl" and so on. */
#ifndef PYTRACECON_OWNER_PIECES_H
#define PYTRACECON_OWNER_PIECES_H

#include <stdint.h>
#include <string.h>

#define LONGEST_PIECE 4096
#define PIECES 8192 /* places; a quarter stays free */
#define PIECES_TEXT (2 << 20)

typedef struct {
	uint64_t process; /* 0: a free place */
	uint64_t cgroup;
	uint32_t at;
	uint32_t size;
} piece;

typedef struct {
	uint32_t known;
	uint32_t used; /* bytes of the text */
	piece places[PIECES];
	char text[PIECES_TEXT];
} pieces;

/* Where it is, or where it may be put. */
static inline piece *piece_of(pieces *all, uint64_t process, uint64_t cgroup)
{
	uint64_t hash = (process * 0x9e3779b97f4a7c15 ^ cgroup) * 0xff51afd7ed558ccd;
	uint32_t at = hash >> 32 & (PIECES - 1);

	while (all->places[at].process && (all->places[at].process != process || all->places[at].cgroup != cgroup))
		at = (at + 1) & (PIECES - 1);
	return &all->places[at];
}

static inline void pieces_forget(pieces *all)
{
	memset(all->places, 0, sizeof(all->places));
	all->known = all->used = 0;
}

/* Others go when there is no room. One that is too long is not kept, so its lines are Python's. */
static inline void piece_add(pieces *all, uint64_t process, uint64_t cgroup, const char *text, size_t size)
{
	piece *place;

	if (!process || size > LONGEST_PIECE)
		return;
	if (all->known >= PIECES / 4 * 3 || all->used + size > PIECES_TEXT)
		pieces_forget(all);
	place = piece_of(all, process, cgroup);
	if (!place->process)
		all->known++;
	*place = (piece){process, cgroup, all->used, size};
	memcpy(all->text + all->used, text, size);
	all->used += size;
}

#endif
