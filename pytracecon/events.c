/*
 * `pytracecon._events`: records as the dataclasses of events.py, equal in every field to what decode.py makes of them.
 *
 * Only what is done for each event is done here. Words, addresses and owners are made by the functions of decode.py,
 * once, and kept in tables of fixed size, where a newer one takes the place of an older. A record that is no event, is
 * not whole, or may have a name, is left to Python.
 *
 * It keeps to the stable ABI, which does not say where a class has its slots: `add` looks for them in an instance.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <stddef.h>

#include <linux/types.h>

#include "addresses.h"
#include "events.h"

#define KINDS (KIND_FLOW + 1)
#define MOST_FIELDS 48
#define CONNS 1024
#define ADDRESSES_KEPT 4096
#define OWNERS 1024
#define ANSWERS 1024

/* The fields of ConnectionEvent, in their order; what a kind has of its own follows. */
enum field {
	TIME_NS,
	CONN,
	PROTO,
	DIRECTION,
	LOCAL_ADDR,
	LOCAL_PORT,
	REMOTE_ADDR,
	REMOTE_PORT,
	V4_MAPPED,
	NETNS,
	PID,
	COMM,
	UID,
	TID,
	THREAD,
	OWNER,
	CGROUP,
	PROCESS,
	HOST,
	HOST_SOURCE,
	HOST_CANDIDATES,
	SERVICE,
	NAT,
	PRE_EXISTING,
	SUBFLOW_OF,
	PARTIAL,
	OWN,
};

#define OF_OWNER (PRE_EXISTING - V4_MAPPED + 1)

struct any_event {
	struct header header;
	struct conn conn;
};

struct shape {
	PyTypeObject *type;
	int count;
	Py_ssize_t at[MOST_FIELDS]; /* where each field's slot is in an instance */
};

struct kept_conn {
	uint64_t id;
	PyObject *text;
};

struct kept_address {
	uint8_t raw[16];
	PyObject *text;
};

/* What all events have in common that an owner's connections of one kind leave: `who` of decode.py. */
#define PROCESS_SIZE (offsetof(struct conn, local_addr) - offsetof(struct conn, cgroup))
#define NAMES_SIZE (sizeof(struct conn) - offsetof(struct conn, protocol))

struct kept_owner {
	char process[PROCESS_SIZE];
	char names[NAMES_SIZE];
	PyObject *who; /* 0: a free place. It holds what follows. */
	PyObject *proto, *direction, *partial, *key;
	PyObject *fields[OF_OWNER];
	PyObject *told; /* its Process, owned; 0: not asked for yet */
};

/* What a function of decode.py said to a number. */
struct answer {
	uint64_t key;
	PyObject *value;
};

typedef struct {
	PyObject_HEAD struct shape kinds[KINDS];
	PyObject *functions; /* keeps those below alive */
	PyObject *address, *who, *failure, *change, *resent, *state, *end, *app;
	PyObject *process_of; /* 0: nobody wants to know */
	PyObject *named;      /* a bit for each hash of an address that may have a name */
	const uint8_t *bits;
	Py_buffer buffer;
	struct kept_conn conns[CONNS];
	struct kept_address addresses[ADDRESSES_KEPT];
	struct kept_owner owners[OWNERS];
	struct answer answers[ANSWERS];
} maker;

static uint64_t mixed(uint64_t number)
{
	return (number * 0x9e3779b97f4a7c15) >> 32;
}

static PyObject *kept(PyObject **place, PyObject *value)
{
	PyObject *before = *place;

	*place = value;
	Py_XDECREF(before);
	return value;
}

/* Sixteen hexadecimal digits. A new reference. */
static PyObject *conn_of(maker *self, uint64_t id)
{
	struct kept_conn *place = &self->conns[mixed(id) % CONNS];

	if (!place->text || place->id != id) {
		char digits[16];
		PyObject *text;

		for (int i = 0; i < 16; i++)
			digits[i] = "0123456789abcdef"[id >> (60 - 4 * i) & 15];
		text = PyUnicode_FromStringAndSize(digits, sizeof(digits));
		if (!text)
			return NULL;
		place->id = id;
		kept(&place->text, text);
	}
	return Py_NewRef(place->text);
}

static PyObject *address_of(maker *self, const uint8_t *raw)
{
	struct kept_address *place = &self->addresses[address_bit((const char *)raw) % ADDRESSES_KEPT];

	if (!place->text || memcmp(place->raw, raw, 16)) {
		PyObject *text = PyObject_CallFunction(self->address, "y#", (const char *)raw, (Py_ssize_t)16);

		if (!text)
			return NULL;
		memcpy(place->raw, raw, 16);
		kept(&place->text, text);
	}
	return Py_NewRef(place->text);
}

/* A new reference, as another answer may take the place. */
static PyObject *answer_of(maker *self, PyObject *function, uint64_t which, uint64_t number)
{
	uint64_t key = number << 4 | which;
	struct answer *place = &self->answers[mixed(key) % ANSWERS];

	if (!place->value || place->key != key) {
		PyObject *value = PyObject_CallFunction(function, "K", (unsigned long long)number);

		if (!value)
			return NULL;
		place->key = key;
		kept(&place->value, value);
	}
	return Py_NewRef(place->value);
}

static int ask_who(maker *self, struct kept_owner *place, const char *process, const char *names)
{
	PyObject *who = PyObject_CallFunction(self->who, "y#y#", process, (Py_ssize_t)PROCESS_SIZE, names,
					      (Py_ssize_t)NAMES_SIZE);
	PyObject *fields;

	if (!who)
		return -1;
	fields = PyTuple_GetItem(who, 2);
	if (!fields || PyTuple_Size(fields) != OF_OWNER || PyTuple_Size(who) != 6) {
		Py_DECREF(who);
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_SystemError, "decode.who has another shape");
		return -1;
	}
	memcpy(place->process, process, PROCESS_SIZE);
	memcpy(place->names, names, NAMES_SIZE);
	place->proto = PyTuple_GetItem(who, 0);
	place->direction = PyTuple_GetItem(who, 1);
	place->partial = PyTuple_GetItem(who, 3);
	place->key = PyTuple_GetItem(who, 5);
	for (int i = 0; i < OF_OWNER; i++)
		place->fields[i] = PyTuple_GetItem(fields, i);
	kept(&place->told, NULL);
	kept(&place->who, who);
	return 0;
}

static struct kept_owner *owner_of(maker *self, const struct conn *conn)
{
	const char *process = (const char *)&conn->cgroup, *names = (const char *)&conn->protocol;
	uint64_t hash = (conn->process ^ (uint64_t)conn->tid << 32 ^ conn->pid) + conn->cgroup * 31 +
			((uint64_t)conn->protocol << 24 | conn->direction << 16 | conn->owner << 8 | conn->flags);
	struct kept_owner *place = &self->owners[mixed(hash) % OWNERS];

	if (!place->who || memcmp(place->process, process, PROCESS_SIZE) || memcmp(place->names, names, NAMES_SIZE)) {
		if (ask_who(self, place, process, names))
			return NULL;
	}
	if (self->process_of && conn->process && !place->told) {
		place->told = PyObject_CallFunctionObjArgs(self->process_of, place->key, NULL);
		if (!place->told)
			return NULL;
	}
	return place;
}

static PyObject *number(uint64_t value)
{
	return PyLong_FromUnsignedLongLong(value);
}

/* Zero means that nobody knows. Without an error set, NULL is None. */
static PyObject *known(uint64_t value)
{
	return value ? number(value) : NULL;
}

static PyObject *fastopen(const struct conn *conn)
{
	return conn->flags & CONN_FASTOPEN ? Py_NewRef(Py_True) : NULL;
}

/* What a function of decode.py says of several fields. */
static void put_answer(PyObject *answer, PyObject **first, PyObject **second, PyObject **third)
{
	PyObject **into[] = {first, second, third};

	for (int i = 0; answer && i < 3 && into[i]; i++)
		*into[i] = Py_XNewRef(PyTuple_GetItem(answer, i));
	Py_XDECREF(answer);
}

enum { FAILURE, CHANGE, RESENT, STATE, END, APP };

static void put_totals(PyObject **own, const struct conn *conn, const struct totals *totals)
{
	own[0] = number(totals->tx_bytes);
	own[1] = number(totals->tx_acked);
	own[2] = number(totals->rx_bytes);
	if (conn->protocol != PROTO_MPTCP) /* its subflows' events count them */
		own[3] = number(totals->retransmits);
	own[4] = known(totals->rtt);
}

/* What a kind of event has behind the fields of all. */
static void put_own(maker *self, PyObject **own, const struct any_event *any)
{
	const union {
		struct established_event established;
		struct failed_event failed;
		struct accept_event accept;
		struct close_event close;
		struct existing_event existing;
		struct state_event state;
		struct retransmit_event retransmit;
		struct reset_event reset;
		struct flow_event flow;
	} *event = (const void *)any;
	const struct conn *conn = &any->conn;

	switch (any->header.kind) {
	case KIND_CONNECT:
		own[0] = fastopen(conn);
		break;
	case KIND_ESTABLISHED:
		own[0] = known(event->established.latency);
		own[1] = number(event->established.syn_retransmits);
		own[2] = fastopen(conn);
		break;
	case KIND_FAILED:
		put_answer(answer_of(self, self->failure, FAILURE, event->failed.error), own, own + 1, NULL);
		own[2] = known(event->failed.latency);
		own[3] = number(event->failed.syn_retransmits);
		break;
	case KIND_ACCEPT:
		own[0] = known(event->accept.wait);
		break;
	case KIND_CLOSE:
		own[0] = known(event->close.duration);
		put_totals(own + 1, conn, &event->close.totals);
		own[6] = answer_of(self, self->end, END, event->close.totals.ended);
		break;
	case KIND_EXISTING:
		own[0] = answer_of(self, self->state, STATE, event->existing.totals.state);
		put_totals(own + 1, conn, &event->existing.totals);
		break;
	case KIND_STATE: {
		uint64_t change = (uint64_t)conn->direction << 32 | event->state.from << 24 | event->state.to << 16 |
				  event->state.error;

		put_answer(answer_of(self, self->change, CHANGE, change), own, own + 1, own + 3);
		own[2] = known(event->state.in_old);
		break;
	}
	case KIND_RETRANSMIT:
		own[0] = answer_of(self, self->state, STATE, event->retransmit.state);
		put_answer(answer_of(self, self->resent, RESENT, event->retransmit.segment), own + 1, own + 3, NULL);
		own[2] = number(event->retransmit.segments);
		break;
	case KIND_RESET:
		own[0] = PyBool_FromLong(event->reset.sent);
		own[1] = answer_of(self, self->state, STATE, event->reset.state);
		break;
	default:
		own[0] = number(event->flow.tx_bytes);
		own[1] = number(event->flow.rx_bytes);
		own[2] = number(event->flow.tx_packets);
		own[3] = number(event->flow.rx_packets);
		own[4] = number(event->flow.duration);
		own[5] = answer_of(self, self->end, END, event->flow.ended);
		own[6] = answer_of(self, self->app, APP, event->flow.app);
	}
}

/*
 * An instance with these values, which it takes over; what is NULL is None. The collector need not look at it: texts,
 * numbers, and what a Process or an Endpoint holds of these never refer to an event. That looking is a third of the price.
 */
static PyObject *instance(const struct shape *kind, PyObject **values)
{
	PyObject *made = PyErr_Occurred() ? NULL : PyType_GenericAlloc(kind->type, 0);

	if (made)
		PyObject_GC_UnTrack(made);
	for (int i = 0; i < kind->count; i++) {
		if (made)
			*(PyObject **)((char *)made + kind->at[i]) = values[i] ? values[i] : Py_NewRef(Py_None);
		else
			Py_XDECREF(values[i]);
	}
	return made;
}

static PyObject *event_of(maker *self, const struct any_event *event, int64_t time)
{
	PyObject *values[MOST_FIELDS] = {0};
	const struct conn *conn = &event->conn;
	const struct kept_owner *owner = owner_of(self, conn);

	if (!owner)
		return NULL;
	values[PROTO] = Py_NewRef(owner->proto);
	values[DIRECTION] = Py_NewRef(owner->direction);
	for (int i = 0; i < OF_OWNER; i++)
		values[V4_MAPPED + i] = Py_NewRef(owner->fields[i]);
	if (self->process_of && conn->process) {
		Py_DECREF(values[PROCESS]);
		values[PROCESS] = Py_NewRef(owner->told);
	}
	values[PARTIAL] = Py_NewRef(owner->partial);
	/* From here on Python may be called, and `owner` may become another's. */
	values[TIME_NS] = PyLong_FromLongLong(time);
	values[CONN] = conn_of(self, conn->id);
	values[LOCAL_PORT] = known(conn->local_port);
	values[REMOTE_PORT] = known(conn->remote_port);
	values[SUBFLOW_OF] = conn->subflow_of ? conn_of(self, conn->subflow_of) : NULL;
	values[LOCAL_ADDR] = address_of(self, conn->local_addr);
	if (values[LOCAL_ADDR])
		values[REMOTE_ADDR] = address_of(self, conn->remote_addr);
	if (values[REMOTE_ADDR])
		put_own(self, values + OWN, event);
	return instance(&self->kinds[event->header.kind], values);
}

static int may_have_a_name(const maker *self, const struct conn *conn)
{
	uint32_t bit = address_bit((const char *)conn->remote_addr);

	return self->bits[bit >> 3] >> (bit & 7) & 1;
}

/* Whether the record there is one of those that are built here. */
static int is_ours(const maker *self, const struct any_event *event, size_t left)
{
	static const size_t sizes[KINDS] = {
		[KIND_CONNECT] = sizeof(struct connect_event), [KIND_ESTABLISHED] = sizeof(struct established_event),
		[KIND_FAILED] = sizeof(struct failed_event),   [KIND_ACCEPT] = sizeof(struct accept_event),
		[KIND_CLOSE] = sizeof(struct close_event),     [KIND_EXISTING] = sizeof(struct existing_event),
		[KIND_STATE] = sizeof(struct state_event),     [KIND_RETRANSMIT] = sizeof(struct retransmit_event),
		[KIND_RESET] = sizeof(struct reset_event),     [KIND_FLOW] = sizeof(struct flow_event),
	};
	unsigned int kind;
	size_t size;

	if (left < sizeof(struct any_event))
		return 0;
	kind = event->header.kind;
	size = event->header.words * 8;
	return kind < KINDS && sizes[kind] && sizes[kind] <= size && size <= left && self->kinds[kind].type &&
	       !may_have_a_name(self, &event->conn);
}

PyDoc_STRVAR(take_doc,
	     "take(batch, at, offset_ns, events)\n--\n\n"
	     "Append the events of the records from there on, and say where the first begins that is left to Python.");

static PyObject *maker_take(maker *self, PyObject *arguments)
{
	PyObject *batch, *events;
	Py_ssize_t at;
	long long offset;
	Py_buffer view;

	if (!PyArg_ParseTuple(arguments, "OnLO", &batch, &at, &offset, &events))
		return NULL;
	if (!PyList_Check(events)) {
		PyErr_SetString(PyExc_TypeError, "events: a list is needed");
		return NULL;
	}
	if (PyObject_GetBuffer(batch, &view, PyBUF_SIMPLE))
		return NULL;
	while (at >= 0 && at < view.len) {
		const struct any_event *event = (const void *)((const char *)view.buf + at);
		long long time;
		PyObject *made;
		int status;

		if (!is_ours(self, event, view.len - at) || __builtin_add_overflow(event->header.time, offset, &time))
			break;
		made = event_of(self, event, time);
		status = made ? PyList_Append(events, made) : -1;
		Py_XDECREF(made);
		if (status) {
			PyBuffer_Release(&view);
			return NULL;
		}
		at += event->header.words * 8;
	}
	PyBuffer_Release(&view);
	return PyLong_FromSsize_t(at);
}

/* Where the instance has the slot of a field: the place where a value appears when that is assigned. */
static Py_ssize_t slot_of(PyObject *probe, PyObject *field, Py_ssize_t size)
{
	PyObject *value = PyList_New(0);
	Py_ssize_t found = 0;

	if (!value)
		return -1;
	if (!PyObject_SetAttr(probe, field, value)) {
		for (Py_ssize_t at = sizeof(PyObject); at < size; at += sizeof(PyObject *))
			if (*(PyObject **)((char *)probe + at) == value)
				found = at;
	}
	Py_DECREF(value);
	if (found)
		return found;
	if (!PyErr_Occurred())
		PyErr_Format(PyExc_TypeError, "the class has no slot for %R", field);
	return -1;
}

PyDoc_STRVAR(add_doc, "add(kind, cls, fields)\n--\n\n"
		      "Records of that kind become instances of the class, whose fields are these, in their order.");

static PyObject *maker_add(maker *self, PyObject *arguments)
{
	unsigned int number;
	PyTypeObject *type;
	PyObject *fields, *probe, *basic;
	Py_ssize_t count, size;
	struct shape kind = {0};

	if (!PyArg_ParseTuple(arguments, "IOO!", &number, &type, &PyTuple_Type, &fields))
		return NULL;
	count = PyTuple_Size(fields);
	if (number >= KINDS || count < OWN || count > MOST_FIELDS || !PyType_Check((PyObject *)type)) {
		PyErr_SetString(PyExc_ValueError, "no such kind of event");
		return NULL;
	}
	basic = PyObject_GetAttrString((PyObject *)type, "__basicsize__");
	size = basic ? PyLong_AsSsize_t(basic) : -1;
	Py_XDECREF(basic);
	if (size < 0)
		return NULL;
	probe = PyType_GenericAlloc(type, 0);
	if (!probe)
		return NULL;
	for (kind.count = 0; kind.count < count; kind.count++) {
		kind.at[kind.count] = slot_of(probe, PyTuple_GetItem(fields, kind.count), size);
		if (kind.at[kind.count] < 0)
			break;
	}
	Py_DECREF(probe);
	if (kind.count < count)
		return NULL;
	kind.type = (PyTypeObject *)Py_NewRef((PyObject *)type);
	Py_XDECREF((PyObject *)self->kinds[number].type);
	self->kinds[number] = kind;
	Py_RETURN_NONE;
}

PyDoc_STRVAR(forget_doc, "forget()\n--\n\nOf what process_of() told nothing is believed any longer.");

static PyObject *maker_forget(maker *self, PyObject *nothing)
{
	(void)nothing;
	for (int i = 0; i < OWNERS; i++)
		kept(&self->owners[i].told, NULL);
	Py_RETURN_NONE;
}

static int maker_init(maker *self, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"functions", "named", "process_of", NULL};
	PyObject *functions, *named, *process_of;
	Py_buffer buffer;

	if (self->functions) {
		PyErr_SetString(PyExc_TypeError, "it is made already");
		return -1;
	}
	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!OO", names, &PyTuple_Type, &functions, &named,
					 &process_of))
		return -1;
	if (!PyArg_ParseTuple(functions, "OOOOOOOO", &self->address, &self->who, &self->failure, &self->change,
			      &self->resent, &self->state, &self->end, &self->app))
		return -1;
	if (PyObject_GetBuffer(named, &buffer, PyBUF_SIMPLE))
		return -1;
	if (buffer.len != 1 << 13) {
		PyBuffer_Release(&buffer);
		PyErr_SetString(PyExc_ValueError, "named: 65,536 bits are needed");
		return -1;
	}
	self->buffer = buffer;
	self->bits = buffer.buf;
	self->functions = Py_NewRef(functions);
	self->process_of = process_of == Py_None ? NULL : Py_NewRef(process_of);
	return 0;
}

static int maker_traverse(maker *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE((PyObject *)self));
	Py_VISIT(self->functions);
	Py_VISIT(self->process_of);
	for (int i = 0; i < KINDS; i++)
		Py_VISIT((PyObject *)self->kinds[i].type);
	return 0;
}

static int maker_clear(maker *self)
{
	Py_CLEAR(self->functions);
	Py_CLEAR(self->process_of);
	for (int i = 0; i < KINDS; i++) {
		PyObject *type = (PyObject *)self->kinds[i].type;

		self->kinds[i].type = NULL;
		Py_XDECREF(type);
	}
	return 0;
}

static void maker_dealloc(maker *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	PyObject_GC_UnTrack(self);
	maker_clear(self);
	if (self->bits)
		PyBuffer_Release(&self->buffer);
	for (int i = 0; i < CONNS; i++)
		Py_XDECREF(self->conns[i].text);
	for (int i = 0; i < ADDRESSES_KEPT; i++)
		Py_XDECREF(self->addresses[i].text);
	for (int i = 0; i < OWNERS; i++) {
		Py_XDECREF(self->owners[i].who);
		Py_XDECREF(self->owners[i].told);
	}
	for (int i = 0; i < ANSWERS; i++)
		Py_XDECREF(self->answers[i].value);
	release(self);
	Py_DECREF((PyObject *)type);
}

static PyMethodDef maker_methods[] = {
	{"add", (PyCFunction)maker_add, METH_VARARGS, add_doc},
	{"take", (PyCFunction)maker_take, METH_VARARGS, take_doc},
	{"forget", (PyCFunction)maker_forget, METH_NOARGS, forget_doc},
	{0},
};

static PyType_Slot maker_slots[] = {
	{Py_tp_doc, "Builds events of records. One thread at a time."},
	{Py_tp_new, PyType_GenericNew},
	{Py_tp_init, maker_init},
	{Py_tp_dealloc, maker_dealloc},
	{Py_tp_traverse, maker_traverse},
	{Py_tp_clear, maker_clear},
	{Py_tp_methods, maker_methods},
	{0},
};

static PyType_Spec maker_spec = {
	.name = "pytracecon._events.Maker",
	.basicsize = sizeof(maker),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.slots = maker_slots,
};

static int fill(PyObject *module)
{
	PyObject *type = PyType_FromSpec(&maker_spec);
	int status = type ? PyModule_AddObjectRef(module, "Maker", type) : -1;

	Py_XDECREF(type);
	return status;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, fill}, {0}};

static PyModuleDef module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "pytracecon._events",
	.m_doc = "Records as dataclasses, in C: see builder.py.",
	.m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__events(void)
{
	return PyModuleDef_Init(&module);
}
