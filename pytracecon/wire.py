"""The layout of what the kernel side writes, in `struct`'s words: bpf/events.h and bpf/settings.h once more.

`tests/unit/test_wire.py` holds every name, offset and size here against the BTF of the compiled object.
"""

from __future__ import annotations

import struct
from typing import Final

Field = tuple[str, str]
"""Name in C and `struct` format of one member."""

HEADER: Final[tuple[Field, ...]] = (("time", "Q"), ("lost", "I"), ("cpu", "H"), ("kind", "B"), ("words", "B"))

CONN: Final[tuple[Field, ...]] = (
    ("id", "Q"),
    ("subflow_of", "Q"),
    ("cgroup", "Q"),
    ("born", "Q"),
    ("process", "Q"),
    ("netns", "I"),
    ("pid", "I"),
    ("tid", "I"),
    ("uid", "I"),
    ("local_addr", "16s"),
    ("remote_addr", "16s"),
    ("local_port", "H"),
    ("remote_port", "H"),
    ("protocol", "B"),
    ("direction", "B"),
    ("owner", "B"),
    ("flags", "B"),
    ("comm", "16s"),
    ("thread", "16s"),
)

TOTALS: Final[tuple[Field, ...]] = (
    ("tx_bytes", "Q"),
    ("tx_acked", "Q"),
    ("rx_bytes", "Q"),
    ("rtt", "Q"),
    ("retransmits", "I"),
    ("state", "B"),
    ("ended", "B"),
    ("reserved", "2x"),
)

ROW: Final[tuple[tuple[Field, ...], ...]] = (
    (("time", "Q"), ("started", "Q"), ("established", "Q"), ("tx_packets", "Q"), ("rx_packets", "Q")),
    CONN,
    TOTALS,
    (
        ("tx_queue", "I"),
        ("rx_queue", "I"),
        ("backlog", "I"),
        ("backlog_limit", "I"),
        ("fd", "I"),
        ("app", "B"),
        ("known", "B"),
        ("reserved", "2x"),
    ),
)
"""What the iterators of a snapshot write, one after the other, in no record: its parts, a struct each."""

ASKER: Final[tuple[Field, ...]] = (
    ("cgroup", "Q"),
    ("born", "Q"),
    ("process", "Q"),
    ("netns", "I"),
    ("pid", "I"),
    ("tid", "I"),
    ("uid", "I"),
    ("comm", "16s"),
    ("thread", "16s"),
)

RELATIVES: Final = 4
NAME_SIZE: Final = 256
ADDRESSES: Final = 16

RECORDS: Final[dict[str, tuple[Field, ...]]] = {
    "connect_event": (),
    "established_event": (("latency", "Q"), ("syn_retransmits", "I"), ("reserved", "4x")),
    "failed_event": (
        ("latency", "Q"),
        ("syn_retransmits", "I"),
        ("error", "H"),
        ("syn_left", "B"),
        ("reserved", "x"),
    ),
    "accept_event": (("wait", "Q"),),
    "close_event": (("duration", "Q"), ("handshake", "Q"), *TOTALS),
    "existing_event": TOTALS,
    "state_event": (("in_old", "Q"), ("error", "H"), ("from", "B"), ("to", "B"), ("reserved", "4x")),
    "retransmit_event": (("segments", "I"), ("segment", "B"), ("state", "B"), ("reserved", "2x")),
    "reset_event": (("sent", "B"), ("state", "B"), ("reserved", "6x")),
    "flow_event": (
        ("duration", "Q"),
        ("idle", "Q"),
        ("tx_bytes", "Q"),
        ("rx_bytes", "Q"),
        ("tx_packets", "Q"),
        ("rx_packets", "Q"),
        ("ended", "B"),
        ("app", "B"),
        ("reserved", "6x"),
    ),
}
"""What each kind of event has behind header and conn; a nested struct's members stand in a row."""

NAME_RECORDS: Final[dict[str, tuple[Field, ...]]] = {
    "lookup_event": (
        *ASKER,
        ("call", "Q"),
        ("latency", "Q"),
        ("code", "i"),
        ("resolver", "B"),
        ("count", "B"),
        ("flags", "B"),
        ("reserved", "x"),
        ("name", f"{NAME_SIZE}s"),
        ("addresses", f"{ADDRESSES * 16}s"),
    ),
    "message_event": (
        *ASKER,
        ("ancestors", f"{RELATIVES * 16}s"),
        ("packet", "Q"),
        ("server", "16s"),
        ("netns", "I"),
        ("seq", "I"),
        ("size", "I"),
        ("at", "I"),
        ("server_port", "H"),
        ("local_port", "H"),
        ("length", "H"),
        ("transport", "B"),
        ("flags", "B"),
    ),
    "hello_event": (*CONN, ("at", "I"), ("length", "I")),
    "program_event": (
        ("inode", "Q"),
        ("device", "I"),
        ("mount_namespace", "I"),
        ("pid", "I"),
        ("reserved", "4x"),
    ),
}
"""What the records for the sake of names have behind the header."""

PARENTS: Final = 8

OWNER_RECORDS: Final[dict[str, tuple[Field, ...]]] = {
    "image_event": (
        ("id", "Q"),
        ("pid", "I"),
        ("path", "H"),
        ("args", "H"),
        ("args_cut", "B"),
        ("reserved", "7x"),
    ),
    "process_event": (
        ("id", "Q"),
        ("image", "Q"),
        ("born", "Q"),
        ("origin_born", "Q"),
        ("pid", "I"),
        ("origin_pid", "I"),
        ("parents", f"{PARENTS * 4}s"),
    ),
    "group_event": (("id", "Q"), ("length", "I"), ("reserved", "4x")),
}
"""What the records that tell what owners are have behind the header."""

KINDS: Final[dict[str, int]] = {
    "connect": 1,
    "established": 2,
    "failed": 3,
    "accept": 4,
    "close": 5,
    "existing": 6,
    "state": 7,
    "retransmit": 8,
    "reset": 9,
    "flow": 10,
}
NAME_KINDS: Final[dict[str, int]] = {"lookup": 11, "message": 12, "hello": 13, "program": 14}
OWNER_KINDS: Final[dict[str, int]] = {"image": 15, "process": 16, "group": 17}

TRANSLATION: Final[tuple[Field, ...]] = (
    ("client", "16s"),
    ("asked", "16s"),
    ("real", "16s"),
    ("netns", "I"),
    ("client_port", "H"),
    ("asked_port", "H"),
    ("real_port", "H"),
    ("kind", "B"),
    ("transport", "B"),
    ("reserved", "4x"),
)
TRANSLATION_KIND: Final = 18
BEGINNING_KIND: Final = 19
"""Of a UDP conversation: header and conn."""

COUNTERS: Final[tuple[Field, ...]] = (
    ("wanted", "Q"),
    ("lost_ring", "Q"),
    ("lost_ring_at", "Q"),
    ("lost_map", "Q"),
    ("lost_map_at", "Q"),
    ("lost_names", "Q"),
    ("lost_names_at", "Q"),
    ("unseen", "Q"),
    ("unseen_at", "Q"),
    ("ids", "Q"),
    ("stood_in", "Q"),
)

SHARED: Final[tuple[Field, ...]] = (
    ("resting", "I"),
    ("forgot", "I"),
    ("idle", "Q"),
    ("stopping", "I"),
    ("sweep", "I"),
    ("conversations", "I"),
    ("left", "I"),
)

SETTINGS: Final[tuple[Field, ...]] = (
    ("min_latency", "Q"),
    ("filters", "I"),
    ("kinds", "I"),
    ("wake_bytes", "I"),
    ("reserved", "4x"),
    ("family", "B"),
    ("direction", "B"),
    ("syn_hook", "B"),
    ("attempt_hook", "B"),
    ("with_error", "B"),
    ("padding", "3x"),
)

NAME_WANTED, NAME_MORE, NAME_CUT, NAME_UNREAD, NAME_LEFT_OUT, NAME_SENT, NAME_WITHIN, NAME_BY_SERVER = (
    1 << bit for bit in range(8)
)
FUNCTIONS: Final = {
    "getaddrinfo": 1,
    "gethostbyname": 2,
    "gethostbyname2": 2,
    "gethostbyname_r": 3,
    "gethostbyname2_r": 4,
}
RESOLVERS: Final = (None, "getaddrinfo", "gethostbyname")

AWAKE, NAPS, ASLEEP = 0, 1, 2
SYN_UNSEEN, SYN_CONNECT, SYN_PACKET = 0, 1, 2
ATTEMPT_UNSEEN, ATTEMPT_FUNCTION, ATTEMPT_SYSCALL = 0, 1, 2

BY_PID, BY_UID, BY_COMM, BY_NETNS, BY_CGROUP = 1, 2, 4, 8, 16
BY_REMOTE_PORT, BY_LOCAL_PORT, BY_NOT_REMOTE_PORT = 32, 64, 128
BY_REMOTE, BY_LOCAL, BY_NOT_REMOTE, BY_CHILDREN = 256, 512, 1024, 2048
BY_CGROUPMAP, BY_MNTNSMAP = 4096, 8192

ERROR_UNKNOWN = 0xFFFF
ROW_TOTALS, ROW_QUEUES, ROW_BACKLOG, ROW_HELD, ROW_PACKETS = 1, 2, 4, 8, 16
V4_MAPPED, PRE_EXISTING, PARTIAL, FASTOPEN = 1, 2, 4, 8


def layout(*parts: tuple[Field, ...]) -> struct.Struct:
    """The given members in a row, as the C compiler lays them out (they are ordered so that it need not pad)."""
    return struct.Struct("=" + "".join(form for part in parts for _, form in part))


RECORD: Final[dict[int, struct.Struct]] = {
    number: layout(HEADER, CONN, RECORDS[f"{name}_event"]) for name, number in KINDS.items()
}
KIND_OFFSET: Final = 14
WORDS_OFFSET: Final = 15
LARGEST_RECORD: Final = 255 * 8
