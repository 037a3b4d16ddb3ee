/* The fields that only some kinds of events have. */
#ifndef PYTRACECON_FIELDS_H
#define PYTRACECON_FIELDS_H

#include "maker.h"

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

#endif
