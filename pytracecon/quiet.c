/*
 * What libbpf prints: thousands of details for each object, and Python would be called, and waited for, with each. Only
 * what is no detail goes on to Python's function, unless somebody wants to read them all.
 */

#define LIBBPF_DETAIL 2 /* LIBBPF_DEBUG of enum libbpf_print_level */

typedef int (*print_function)(int level, const char *format, va_list arguments);

static print_function quiet_print;
static int quiet_details;

static int quiet(int level, const char *format, va_list arguments)
{
	if (level >= LIBBPF_DETAIL && !__atomic_load_n(&quiet_details, __ATOMIC_RELAXED))
		return 0;
	return quiet_print(level, format, arguments);
}

/* The function to give to libbpf; `print` is Python's. */
static uintptr_t quiet_before(uintptr_t print)
{
	quiet_print = (print_function)print;
	return (uintptr_t)quiet;
}

static void quiet_let_through(int details)
{
	__atomic_store_n(&quiet_details, details, __ATOMIC_RELAXED);
}
