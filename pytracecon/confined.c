/*
 * A child under a seccomp filter that lets nearly nothing pass, in which a uretprobe is tried before any other process
 * meets one. Between fork() and its end the child calls the kernel only.
 */

typedef struct {
	int pid;                 /* or a negative errno: then there is nothing to end */
	int go;                  /* with a byte from here it may begin */
	unsigned char *returned; /* shared with it: 1 if the function did, or if it could not be tried */
} confined;

#define CONFINED_ANSWER 42

/* Of arch/x86/entry/syscalls/syscall_64.tbl, since 56101b69c919 (v6.18). */
#define UPROBE_CALL 336

/*
 * Whether it has to be tried. Not where the kernel has the system call of uprobes, which says ENXIO or EPROTO to who
 * calls it by hand: with it came 98a89001fcda, and seccomp lets both pass, it and that of uretprobes. A process that is
 * filtered itself makes no such call: a filter may kill for it.
 */
static int confined_needed(void)
{
#ifdef __x86_64__
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == SECCOMP_MODE_DISABLED)
		return syscall(UPROBE_CALL) != -1 || (errno != ENXIO && errno != EPROTO);
#endif
	return 1;
}

/* Where the uretprobe is put. */
__attribute__((noinline, noclone)) static int confined_function(int number)
{
	__asm__ volatile("" : "+r"(number));
	return number;
}

static uintptr_t confined_target(void)
{
	return (uintptr_t)confined_function;
}

static void confined_child(int go, unsigned char *returned)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = {.len = sizeof(filter) / sizeof(*filter), .filter = filter};
	struct rlimit no_core = {0, 0};
	char byte;
	ssize_t got;

	setrlimit(RLIMIT_CORE, &no_core);
	while ((got = read(go, &byte, 1)) < 0 && errno == EINTR)
		;
	if (got != 1)
		_exit(0); /* nobody is there any more to tell */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
		*returned = 1; /* it cannot be tried, and nobody else can be confined like that either */
		_exit(0);
	}
	*returned = confined_function(CONFINED_ANSWER) == CONFINED_ANSWER;
	syscall(__NR_exit_group, *returned ? 0 : 1);
}

/*
 * The child waits. Not for the end of a pipe: whatever another thread forks meanwhile would keep that open. It has all
 * signals blocked, since Python's handlers would write to the wakeup descriptor that both have; what the kernel sends
 * for a fault kills all the same.
 */
static confined confined_start(void)
{
	confined child = {-1, -1, NULL};
	sigset_t all, before;
	int ends[2];

	child.returned = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (child.returned == MAP_FAILED) {
		child.pid = -errno;
		return child;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
		child.pid = -errno;
		munmap(child.returned, 1);
		return child;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	child.pid = fork();
	if (!child.pid) {
		close(ends[1]);
		confined_child(ends[0], child.returned);
	}
	if (child.pid < 0)
		child.pid = -errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	close(ends[0]);
	child.go = ends[1];
	if (child.pid < 0) {
		close(child.go);
		munmap(child.returned, 1);
	}
	return child;
}

/*
 * Lets it run. 0 if all went well, else what waitpid() says of it; -1 if nobody can say. That status alone tells nothing
 * where SIGCHLD is ignored, or another thread waits for any child: it is gone then, and waitpid() fails.
 */
static int confined_end(confined child)
{
	int status = 0, returned;

	send(child.go, "", 1, MSG_NOSIGNAL);
	close(child.go);
	while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR)
		;
	returned = *child.returned;
	munmap(child.returned, 1);
	if (returned)
		return 0;
	/* No fault is answered with SIGKILL: somebody sent it, or memory was short. */
	return status && WTERMSIG(status) != SIGKILL ? status : -1;
}
