"""Lines of a file that `explain` is to read: events, or `InvalidValue` with the number of the line."""

from __future__ import annotations

import io
import unicodedata

from pytracecon.errors import InvalidValue
from pytracecon.events import Event
from pytracecon.lives import Lives
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.reading import Lines
from pytracecon.views import explain
from unit.test_reading import KINDS, LOST, OUT, TIME

_CONN = '"conn":"00003fa2c18e0007","proto":"tcp","direction":"out","remote_addr":"::1","remote_port":443,"pid":7'


def seeds() -> list[bytes]:
    whole = [
        f'{{"event":"connect",{TIME},{_CONN},"comm":"curl","host":"a.example","host_source":"sni"}}',
        f'{{"event":"established",{TIME},{_CONN},"latency_ns":1000,"syn_retransmits":1}}',
        f'{{"event":"state",{TIME},{_CONN},"old":"CLOSE","new":"SYN_SENT","meaning":"open"}}',
        f'{{"event":"retransmit",{TIME},{_CONN},"state":"ESTABLISHED","segment":"data","segments":3}}',
        f'{{"event":"reset",{TIME},{_CONN},"sent":true}}',
        f'{{"event":"close",{TIME},{_CONN},"duration_ns":7000,"tx_bytes":1,"ended":"local_close","rtt_ns":9}}',
    ]
    failed = f'{{"event":"failed",{TIME},{_CONN},"error":"ECONNREFUSED","reason":"refused","args":["a","\\u001b"]}}'
    found = f'{{"event":"accept",{TIME},{_CONN},"nat":{{"addr":"::1","port":1}},"parents":[1,2]}}'
    lookup = f'{{"event":"lookup",{TIME},"name":"a.example","addresses":["::1"],"pid":7}}'
    kinds = [f'{{"event":"{kind.event}",{TIME},{_CONN}}}' for kind in KINDS]
    lines = [*whole, failed, found, lookup, f"{{{OUT}}}", *kinds]
    return [LOST, "\n".join(whole).encode(), *(line.encode() for line in lines)]


def harmless(shown: str) -> bool:
    return all(character == "\n" or unicodedata.category(character) not in ("Cc", "Cf", "Cs") for character in shown)


def run(data: bytes) -> None:
    lines, read = Lines(io.BytesIO(data), "events.jsonl"), list[Event]()
    try:
        read += lines
    except InvalidValue as error:
        assert str(error).isprintable()
    again = b"".join(piece for piece, _ in JsonLines().render(read))
    assert list(Lines(io.BytesIO(again), "again")) == read
    lives = Lives("", the_one=True, most=100)
    for event in read:
        lives.take(event)
    for life in lives.all.values():
        shown = explain.screen(life, lambda: 80, lost=lives.lost_in(life), utc=True)
        assert harmless(shown), shown
    assert harmless(explain.choice(lives.all.values(), lambda: 80, utc=True))
