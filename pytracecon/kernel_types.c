/*
 * The few types of the kernel that the programs ask for, out of its 100,000: libbpf looks through all that it is given,
 * once for each of ours, and that takes as long as the kernel takes to verify the programs.
 *
 * Kept is each type that is named as one of ours, and what lies within it. A pointer points to nothing: what is behind
 * it is asked for by its own name.
 */

typedef struct {
	const unsigned char *types;
	const char *names;
	uint32_t types_size;
	uint32_t names_size;
} type_section;

static int type_section_of(type_section *found, const unsigned char *data, size_t size)
{
	struct btf_header head;

	if (size < sizeof(head))
		return 0;
	memcpy(&head, data, sizeof(head));
	if (head.magic != BTF_MAGIC || head.hdr_len > size || head.type_off > size || head.str_off > size)
		return 0;
	if ((uint64_t)head.hdr_len + head.type_off + head.type_len > size || !head.str_len)
		return 0;
	if ((uint64_t)head.hdr_len + head.str_off + head.str_len > size)
		return 0;
	found->types = data + head.hdr_len + head.type_off;
	found->types_size = head.type_len;
	found->names = (const char *)data + head.hdr_len + head.str_off;
	found->names_size = head.str_len;
	return !found->names[found->names_size - 1];
}

/* The section .BTF of an ELF file. */
static int type_section_in(type_section *found, const unsigned char *image, size_t size)
{
	Elf64_Ehdr file;
	Elf64_Shdr section, names;

	if (size < sizeof(file))
		return 0;
	memcpy(&file, image, sizeof(file));
	if (file.e_shoff > size || (uint64_t)file.e_shnum * sizeof(section) > size - file.e_shoff)
		return 0;
	if (file.e_shstrndx >= file.e_shnum)
		return 0;
	memcpy(&names, image + file.e_shoff + file.e_shstrndx * sizeof(names), sizeof(names));
	for (int at = 0; at < file.e_shnum; at++) {
		memcpy(&section, image + file.e_shoff + at * sizeof(section), sizeof(section));
		if (names.sh_offset + section.sh_name + sizeof(".BTF") > size)
			return 0;
		if (strcmp((const char *)image + names.sh_offset + section.sh_name, ".BTF"))
			continue;
		if (section.sh_offset > size || section.sh_size > size - section.sh_offset)
			return 0;
		return type_section_of(found, image + section.sh_offset, section.sh_size);
	}
	return 0;
}

/* The whole type with what follows it; 0 for a kind that is not known here. */
static size_t type_size(const struct btf_type *type)
{
	size_t count = BTF_INFO_VLEN(type->info);

	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_PTR:
	case BTF_KIND_FWD:
	case BTF_KIND_TYPEDEF:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_CONST:
	case BTF_KIND_RESTRICT:
	case BTF_KIND_FUNC:
	case BTF_KIND_FLOAT:
	case 18: /* BTF_KIND_TYPE_TAG, Linux 5.17 */
		return sizeof(*type);
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case 17: /* BTF_KIND_DECL_TAG, 5.16 */
		return sizeof(*type) + 4;
	case BTF_KIND_ARRAY:
		return sizeof(*type) + sizeof(struct btf_array);
	case BTF_KIND_ENUM:
	case BTF_KIND_FUNC_PROTO:
		return sizeof(*type) + 8 * count;
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
	case BTF_KIND_DATASEC:
	case 19: /* BTF_KIND_ENUM64, 6.0 */
		return sizeof(*type) + 12 * count;
	}
	return 0;
}

static int type_can_be_asked_for(const struct btf_type *type)
{
	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
	case BTF_KIND_ENUM:
	case BTF_KIND_FWD:
	case BTF_KIND_TYPEDEF:
	case 19: /* BTF_KIND_ENUM64 */
		return type->name_off != 0;
	}
	return 0;
}

/* Without what follows three underscores: CO-RE takes that for a flavour of the same type. */
static size_t type_name_length(const char *name)
{
	size_t length = strlen(name);

	for (size_t at = length < 5 ? 0 : length - 4; at-- > 0;) {
		if (name[at] != '_' && !memcmp(name + at + 1, "___", 3) && name[at + 4] != '_')
			return at + 1;
	}
	return length;
}

#define WANTED_SLOTS 4096 /* a power of two; a quarter of it may be taken */

typedef struct {
	const char *name;
	size_t length;
} wanted_name;

static wanted_name *wanted_slot(wanted_name *wanted, const char *name, size_t length)
{
	uint32_t hash = 2166136261u;

	for (size_t at = 0; at < length; at++)
		hash = (hash ^ (unsigned char)name[at]) * 16777619u;
	for (uint32_t slot = hash ^ hash >> 15;; slot++) {
		wanted_name *one = &wanted[slot % WANTED_SLOTS];

		if (!one->name || (one->length == length && !memcmp(one->name, name, length)))
			return one;
	}
}

static int wanted_take(wanted_name *wanted, const type_section *own)
{
	uint32_t taken = 0;

	for (size_t at = 0; at + sizeof(struct btf_type) <= own->types_size;) {
		const struct btf_type *type = (const struct btf_type *)(own->types + at);
		size_t size = type_size(type);

		if (!size || size > own->types_size - at || type->name_off >= own->names_size)
			return 0;
		at += size;
		if (!type_can_be_asked_for(type))
			continue;
		const char *name = own->names + type->name_off;
		size_t length = type_name_length(name);
		wanted_name *slot = wanted_slot(wanted, name, length);

		if (slot->name)
			continue;
		if (++taken > WANTED_SLOTS / 4)
			return 0;
		slot->name = name;
		slot->length = length;
	}
	return 1;
}

typedef struct {
	type_section kernel;
	const struct btf_type **types; /* by their number */
	uint32_t *numbers;             /* that they have now; 0: none */
	uint32_t *kept;
	uint32_t count, kept_count;
	unsigned char *out;
	char *names;
	uint32_t out_size, names_size, names_room;
	int strange;
} type_choice;

static uint32_t choose(type_choice *c, uint32_t number)
{
	if (!number)
		return 0;
	if (number > c->count) {
		c->strange = 1;
		return 0;
	}
	if (!c->numbers[number]) {
		c->numbers[number] = ++c->kept_count;
		c->kept[c->kept_count] = number;
	}
	return c->numbers[number];
}

static uint32_t keep_name(type_choice *c, uint32_t offset)
{
	uint32_t at = c->names_size;

	if (!offset)
		return 0;
	if (offset >= c->kernel.names_size) {
		c->strange = 1;
		return 0;
	}
	size_t size = strlen(c->kernel.names + offset) + 1;

	if (size > c->names_room - at) {
		c->strange = 1;
		return 0;
	}
	memcpy(c->names + at, c->kernel.names + offset, size);
	c->names_size += size;
	return at;
}

static void keep_type(type_choice *c, const struct btf_type *from)
{
	struct btf_type *type = (struct btf_type *)(c->out + c->out_size);
	size_t size = type_size(from), count = BTF_INFO_VLEN(from->info);

	memcpy(type, from, size);
	type->name_off = keep_name(c, from->name_off);
	switch (BTF_INFO_KIND(from->info)) {
	case BTF_KIND_PTR:
		type->type = 0;
		break;
	case BTF_KIND_TYPEDEF:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_CONST:
	case BTF_KIND_RESTRICT:
	case 18: /* BTF_KIND_TYPE_TAG */
		type->type = choose(c, from->type);
		break;
	case BTF_KIND_ARRAY: {
		struct btf_array *array = (struct btf_array *)(type + 1);

		array->type = choose(c, array->type);
		array->index_type = choose(c, array->index_type);
		break;
	}
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION: {
		struct btf_member *members = (struct btf_member *)(type + 1);

		for (size_t at = 0; at < count; at++) {
			members[at].name_off = keep_name(c, members[at].name_off);
			members[at].type = choose(c, members[at].type);
		}
		break;
	}
	case BTF_KIND_ENUM: {
		struct btf_enum *values = (struct btf_enum *)(type + 1);

		for (size_t at = 0; at < count; at++)
			values[at].name_off = keep_name(c, values[at].name_off);
		break;
	}
	case 19: { /* BTF_KIND_ENUM64 */
		uint32_t(*values)[3] = (uint32_t(*)[3])(type + 1);

		for (size_t at = 0; at < count; at++)
			values[at][0] = keep_name(c, values[at][0]);
		break;
	}
	case BTF_KIND_FUNC_PROTO: /* of a typedef: what it takes nobody asks for */
		type->info &= ~0xffffu;
		type->type = 0;
		size = sizeof(*type);
		break;
	case BTF_KIND_INT:
	case BTF_KIND_FLOAT:
	case BTF_KIND_FWD:
		break;
	default: /* lies within nothing */
		c->strange = 1;
	}
	c->out_size += size;
}

static int choose_types(type_choice *c, wanted_name *wanted)
{
	for (size_t at = 0; at + sizeof(struct btf_type) <= c->kernel.types_size;) {
		const struct btf_type *type = (const struct btf_type *)(c->kernel.types + at);
		size_t size = type_size(type);

		if (!size || size > c->kernel.types_size - at || type->name_off >= c->kernel.names_size)
			return 0;
		at += size;
		c->types[++c->count] = type;
		if (!type_can_be_asked_for(type))
			continue;
		const char *name = c->kernel.names + type->name_off;

		if (wanted_slot(wanted, name, type_name_length(name))->name)
			choose(c, c->count);
	}
	for (uint32_t at = 1; at <= c->kept_count && !c->strange; at++)
		keep_type(c, c->types[c->kept[at]]);
	return !c->strange;
}

static int write_whole(int fd, const void *data, size_t size)
{
	while (size) {
		ssize_t written = write(fd, data, size);

		if (written < 0)
			return 0;
		data = (const char *)data + written;
		size -= written;
	}
	return 1;
}

/* Writes the BTF of what of `kernel` has a name that a type in the ELF file `image` has. 0 if either is strange. */
static int few_types(const unsigned char *kernel, size_t kernel_size, const unsigned char *image, size_t image_size,
		     int out)
{
	wanted_name wanted[WANTED_SLOTS] = {0};
	type_section own;
	type_choice c = {0};
	int done = 0;

	if (!type_section_in(&own, image, image_size) || !type_section_of(&c.kernel, kernel, kernel_size) ||
	    !wanted_take(wanted, &own))
		return 0;
	size_t most = c.kernel.types_size / sizeof(struct btf_type) + 1;

	c.types = malloc(most * sizeof(*c.types));
	c.numbers = calloc(most, sizeof(*c.numbers));
	c.kept = malloc(most * sizeof(*c.kept));
	c.out = malloc(c.kernel.types_size + 1);
	c.names_room = c.kernel.names_size;
	c.names = malloc(c.names_room);
	c.names_size = 1;
	if (c.types && c.numbers && c.kept && c.out && c.names && choose_types(&c, wanted)) {
		struct btf_header head = {
			.magic = BTF_MAGIC,
			.version = BTF_VERSION,
			.hdr_len = sizeof(head),
			.type_len = c.out_size,
			.str_off = c.out_size,
			.str_len = c.names_size,
		};

		c.names[0] = 0;
		done = write_whole(out, &head, sizeof(head)) && write_whole(out, c.out, c.out_size) &&
		       write_whole(out, c.names, c.names_size);
	}
	free(c.names);
	free(c.out);
	free(c.kept);
	free(c.numbers);
	free(c.types);
	return done;
}

/* Of the kernel, to be unmapped; NULL if they cannot be read. They cannot be mapped before a539e2a6d51d (v6.16). */
static unsigned char *kernel_types_at(const char *path, size_t *size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	struct stat found;
	unsigned char *all;
	size_t at = 0;

	if (file < 0)
		return NULL;
	if (fstat(file, &found) || found.st_size <= 0) {
		close(file);
		return NULL;
	}
	*size = found.st_size;
	all = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, file, 0);
	if (all == MAP_FAILED) {
		all = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		while (all != MAP_FAILED && at < *size) {
			ssize_t got = read(file, all + at, *size - at);

			if (got > 0) {
				at += got;
			} else if (!got || errno != EINTR) {
				munmap(all, *size);
				all = MAP_FAILED;
			}
		}
	}
	close(file);
	return all == MAP_FAILED ? NULL : all;
}

/*
 * The same of the file at `path`, which is the kernel's. All of it in C: sysfs gives a page at a time, and 1,300 times
 * Python would hand its lock over to who imports, and want it back.
 */
static int few_types_of(const char *path, const unsigned char *image, size_t image_size, int out)
{
	size_t size;
	unsigned char *kernel = kernel_types_at(path, &size);

	if (!kernel)
		return 0;
	int done = few_types(kernel, size, image, image_size, out);

	munmap(kernel, size);
	return done;
}
