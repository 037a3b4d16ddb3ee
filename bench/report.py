"""From the raw numbers to a small table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

Raw = dict[str, Any]
Row = tuple[str, str, str, str]


def table(results: Raw) -> str:
    rows: list[Row] = [("", "pytracecon", "tcplife", "")]
    for name, rows_of in _PARTS.items():
        if name in results:
            rows.extend(rows_of(results[name]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{name:<{widths[0]}}  {ours:>{widths[1]}}  {theirs:>{widths[2]}}  {note}".rstrip()
        for name, ours, theirs, note in rows
    )


def _start(raw: Raw) -> Iterator[Row]:
    ours, theirs = raw["pytracecon"], raw["tcplife"]
    seconds = ours["seconds"]
    spread = f"{min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f} ms in {len(seconds)} starts; goal: 150 ms"
    yield "start", f"{median(seconds) * 1e3:.0f} ms", f"{median(theirs['seconds']) * 1e3:.0f} ms", spread
    yield "CPU of it", f"{median(ours['cpu_ns']) / 1e6:.0f} ms", f"{median(theirs['cpu_ns']) / 1e6:.0f} ms", ""


def _delivery(raw: list[Raw]) -> Iterator[Row]:
    for each in raw:
        expected = sum(each["expected"].values())
        exact = all(each["found"].get(kind) == count for kind, count in each["expected"].items())
        lost = each["found"].get("lost", 0)
        found = sum(count for kind, count in each["found"].items() if kind != "lost")
        verdict = "every one of them" if exact and not lost else f"{lost} said to be lost"
        yield f"events of {expected}, {each['first to close']} first", str(found), "", verdict
    worst = [max(each["pss_kb"][side] for each in raw) / 1024 for side in ("pytracecon", "tcplife")]
    yield "PSS after them", f"{worst[0]:.1f} MB", f"{worst[1]:.1f} MB", "goal: 40 MB"


def _compared(raw: list[Raw], name: str, unit: str, value: Callable[[Raw], float]) -> Iterator[Row]:
    ours, theirs = ([value(each[side]) for each in raw] for side in ("pytracecon", "tcplife"))
    ratio = median(mine / his for mine, his in zip(ours, theirs, strict=True))
    yield name, f"{median(ours):.2f} {unit}", f"{median(theirs):.2f} {unit}", f"ratio {ratio:.2f}"


def _cost(raw: list[Raw]) -> Iterator[Row]:
    yield from _compared(raw, "CPU an event (a row)", "µs", lambda each: each["cpu_ns"] / each["rows"] / 1e3)
    yield from _compared(
        raw, "CPU a connection", "µs", lambda each: each["cpu_ns"] / each["generator"]["connections"] / 1e3
    )
    lost = [
        sum(each[side]["lost"] for each in raw) / sum(each[side]["lost"] + each[side]["rows"] for each in raw)
        for side in ("pytracecon", "tcplife")
    ]
    yield "events (rows) lost", f"{lost[0]:.1%}", f"{lost[1]:.1%}", ""
    nothing = [_rate(each["nothing"]) for each in raw]
    kept = {
        side: median(_rate(each[side]) / alone for each, alone in zip(raw, nothing, strict=True))
        for side in ("pytracecon", "tcplife")
    }
    note = f"of {median(nothing):,.0f} connections a second untraced"
    yield "rate kept", f"{kept['pytracecon']:.2f}", f"{kept['tcplife']:.2f}", note


def _rate(raw: Raw) -> float:
    return float(raw["generator"]["connections"] / raw["generator"]["seconds"])


def _bpf_time(raw: list[Raw]) -> Iterator[Row]:
    yield from _compared(
        raw, "BPF time a connection", "µs", lambda each: each["bpf_ns"] / each["generator"]["connections"] / 1e3
    )


def _names(raw: Raw) -> Iterator[Row]:
    costs = {side: [_call_us(each[side]) for each in raw["cost"]] for side in ("off", "on")}
    added = [on - off for on, off in zip(costs["on"], costs["off"], strict=True)]
    note = f"of {median(costs['off']):.1f} µs untraced, {min(added):.1f} to {max(added):.1f} µs; goal: 5 µs"
    yield "added to getaddrinfo", f"{median(added):.1f} µs", "", note
    for each in (*raw["delivery"], raw["many"]):
        expected, found = each["generator"]["lookups"], each["found"].get("lookup", 0)
        rate = expected / each["generator"]["seconds"]
        lost = each["found"].get("lost", 0)
        verdict = "every one of them" if found == expected and not lost else f"{lost} records said to be lost"
        yield f"lookups of {expected}, {each['way']}", str(found), "", f"{rate:,.0f} a second: {verdict}"
    many = raw["many"]
    note = f"{many['peak_rss_kb'] / 1024:.0f} MB RSS at most; goal: 100 MB"
    yield f"PSS after {many['generator']['lookups']} names", f"{many['pss_kb'] / 1024:.1f} MB", "", note


def _snapshot(raw: Raw) -> Iterator[Row]:
    seconds, cpu = raw["seconds"], raw["cpu_seconds"]
    spread = f"{min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f} ms, {median(cpu) * 1e3:.0f} ms of CPU; goal: 500 ms"
    yield f"snapshot of {raw['connections']}", f"{median(seconds) * 1e3:.0f} ms", "", spread
    yield "the first one", f"{raw['first_seconds'] * 1e3:.0f} ms", "", ""


def _top(raw: list[Raw]) -> Iterator[Row]:
    for each in raw:
        share = each["cpu_ns"] / 1e9 / each["seconds"]
        note = f"of a core, one refresh a second, {each['bytes'] / each['seconds']:,.0f} B/s drawn; goal: 10 %"
        yield f"top of {each['connections']} by {each['by']}", f"{share:.1%}", "", note


def _throughput(raw: dict[str, list[Raw]]) -> Iterator[Row]:
    for kind, goal, unit, per in (("tcp", "97 %", "GB", 1e9), ("udp", "85 %", "thousand datagrams", 1e3)):
        kept = [each["traced"] / each["alone"] for each in raw[kind]]
        alone = median(each["alone"] for each in raw[kind]) / per
        note = f"{min(kept):.1%} to {max(kept):.1%} of {alone:.1f} {unit} a second untraced; goal: {goal}"
        yield f"{kind} throughput kept", f"{median(kept):.1%}", "", note


def _call_us(raw: Raw) -> float:
    return float(raw["calls_seconds"] / raw["lookups"] * 1e6)


_PARTS: dict[str, Callable[[Any], Iterator[Row]]] = {
    "start": _start,
    "delivery": _delivery,
    "cost": _cost,
    "bpf_time": _bpf_time,
    "names": _names,
    "snapshot": _snapshot,
    "top": _top,
    "throughput": _throughput,
}
