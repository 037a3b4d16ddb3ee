/* The maker of events.c: what it remembers, so that Python is asked once. */
#ifndef PYTRACECON_MAKER_H
#define PYTRACECON_MAKER_H

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

/* Here and below: no function is called while an error is set, which would become another one. */
static PyObject *address_of(maker *self, const uint8_t *raw)
{
	struct kept_address *place = &self->addresses[address_bit((const char *)raw) % ADDRESSES_KEPT];

	if (!place->text || memcmp(place->raw, raw, 16)) {
		PyObject *text = NULL;

		if (!PyErr_Occurred())
			text = PyObject_CallFunction(self->address, "y#", (const char *)raw, (Py_ssize_t)16);
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
		PyObject *value = NULL;

		if (!PyErr_Occurred())
			value = PyObject_CallFunction(function, "K", (unsigned long long)number);
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

#endif
