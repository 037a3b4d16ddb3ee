// SPDX-License-Identifier: MIT
/* What an actor sees of the file system: mounts of its own, and another root. All of it is gone when it is. */
#define _GNU_SOURCE
#include "traffic.h"

#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

/* mounts: from now on they are its own */
static void own_mounts(struct step *step)
{
	if (done(step, unshare(CLONE_NEWNS)))
		done(step, mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

/* mount FROM TO: what is at FROM is seen at TO too */
static void mount_over(struct step *step)
{
	done(step, mount(text(step, 1), text(step, 2), NULL, MS_BIND, NULL));
}

/* root FOLDER: becomes / */
static void change_root(struct step *step)
{
	if (done(step, chroot(text(step, 1))))
		done(step, chdir("/"));
}

const struct verb mount_verbs[] = {
	{"mounts", own_mounts},
	{"mount", mount_over},
	{"root", change_root},
	{0},
};
