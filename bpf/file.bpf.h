/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* From a descriptor or a file to the socket behind it. */
#ifndef PYTRACECON_FILE_BPF_H
#define PYTRACECON_FILE_BPF_H

#include "compat.bpf.h"

/* Only sockfs has its magic: an O_PATH descriptor of a socket's path in some other file system is no socket. */
static __always_inline const struct sock *sock_of_file(const struct file *file)
{
	struct socket *socket;

	if (BPF_CORE_READ(file, f_inode, i_sb, s_magic) != SOCKFS_MAGIC)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return socket ? BPF_CORE_READ(socket, sk) : NULL;
}

static __always_inline const struct sock *sock_of_fd(long fd)
{
	struct task_struct *task = current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slots = BPF_CORE_READ(table, fd);
	struct file *file = NULL;

	if ((unsigned long)fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), slots + fd);
	return file ? sock_of_file(file) : NULL;
}

#endif
