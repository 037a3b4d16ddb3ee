/*
 * `pytracecon._events`: records as the dataclasses of events.py, equal in every field to what decode.py makes of them.
 *
 * Only what is done for each event is done here. Words, addresses and owners are made by the functions of decode.py,
 * once, and kept in tables of fixed size, where a newer one takes the place of an older. A record that is no event, is
 * not whole, or may have a name, is left to Python.
 *
 * It keeps to the stable ABI, which does not say where a class has its slots: `add` looks for them in an instance.
 */
#include "fields.h"

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
