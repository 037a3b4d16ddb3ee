/*
 * A child under a seccomp filter that lets nearly nothing pass, in which a uretprobe is tried before any other process
 * meets one. Between fork() and its end the child calls the kernel only.
 */

typedef struct {
	int pid; /* or a negative errno */
	int go;  /* closed: it may begin */
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

static void confined_child(int go)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog program = {.len = sizeof(filter) / sizeof(*filter), .filter = filter};
	struct rlimit no_core = {0, 0};
	char nothing;

	setrlimit(RLIMIT_CORE, &no_core);
	while (read(go, &nothing, 1) < 0 && errno == EINTR)
		;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		_exit(0); /* it cannot be tried, and nobody else can be confined like that either */
	syscall(__NR_exit_group, confined_function(CONFINED_ANSWER) == CONFINED_ANSWER ? 0 : 1);
}

/* The child waits; `go` keeps it. */
static confined confined_start(void)
{
	confined child = {-1, -1};
	int ends[2];

	if (pipe2(ends, O_CLOEXEC)) {
		child.pid = -errno;
		return child;
	}
	child.pid = fork();
	if (!child.pid) {
		close(ends[1]);
		confined_child(ends[0]);
	}
	if (child.pid < 0)
		child.pid = -errno;
	close(ends[0]);
	child.go = ends[1];
	return child;
}

/* Lets it run, and gives what waitpid() says of it: 0 if all went well. */
static int confined_end(confined child)
{
	int status = 0;

	close(child.go);
	if (child.pid < 0)
		return -child.pid;
	while (waitpid(child.pid, &status, 0) < 0)
		if (errno != EINTR)
			return errno;
	return status;
}
