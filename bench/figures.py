"""From the raw numbers of a part to the rows of its table: medians, ratios, and what was found on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median, quantiles
from typing import Any, NamedTuple

Raw = dict[str, Any]
SIDES = ("pytracecon", "tcplife", "tcpstates")


class Row(NamedTuple):
    what: str
    pytracecon: str = ""
    tcplife: str = ""
    tcpstates: str = ""
    remarks: str = ""


class Table(NamedTuple):
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(results: Raw) -> dict[str, Table]:
    """By part, of those that were measured. A column in which nothing stands is left out."""
    return {name: _table(results[name]) for name, _table in _TABLES.items() if name in results}


def _of_sides(rows_of: Callable[[Any], Iterator[Row]]) -> Callable[[Any], Table]:
    def table(raw: Any) -> Table:
        rows = list(rows_of(raw))
        kept = [at for at in range(len(Row._fields)) if at == 0 or any(row[at] for row in rows)]
        columns = ("", *Row._fields[1:-1], "")
        return Table(tuple(columns[at] for at in kept), [tuple(row[at] for at in kept) for row in rows])

    return table


def _start(raw: Raw) -> Iterator[Row]:
    ours, theirs = raw["pytracecon"], raw["tcplife"]
    seconds = ours["seconds"]
    spread = f"{min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f} ms in {len(seconds)} starts; goal: 150 ms"
    yield Row("start", f"{median(seconds) * 1e3:.0f} ms", f"{median(theirs['seconds']) * 1e3:.0f} ms", remarks=spread)
    yield Row("CPU of it", f"{median(ours['cpu_ns']) / 1e6:.0f} ms", f"{median(theirs['cpu_ns']) / 1e6:.0f} ms")


def _delivery(raw: list[Raw]) -> Iterator[Row]:
    for each in raw:
        expected = sum(each["expected"].values())
        exact = all(each["found"].get(kind) == count for kind, count in each["expected"].items())
        lost = each["found"].get("lost", 0)
        found = sum(count for kind, count in each["found"].items() if kind != "lost")
        verdict = "every one of them" if exact and not lost else f"{lost} said to be lost"
        yield Row(f"events of {expected}, {each['first to close']} first", str(found), remarks=verdict)
    worst = [max(each["pss_kb"][side] for each in raw) / 1024 for side in ("pytracecon", "tcplife")]
    yield Row("PSS after them", f"{worst[0]:.1f} MB", f"{worst[1]:.1f} MB", remarks="goal: 40 MB")


def _sides_of(raw: list[Raw]) -> tuple[str, ...]:
    return tuple(side for side in SIDES if side in raw[0])


def _compared(raw: list[Raw], name: str, unit: str, value: Callable[[Raw], float], remarks: str = "") -> Row:
    found = {side: f"{median(value(each[side]) for each in raw):.2f} {unit}" for side in _sides_of(raw)}
    return Row(name, **found, remarks=remarks)


def _connections(raw: Raw) -> int:
    return int(raw["generator"]["connections"])


def _cost(raw: list[Raw]) -> Iterator[Row]:
    nothing = [_rate(each["nothing"]) for each in raw]
    kept = {
        side: median(_rate(each[side]) / alone for each, alone in zip(raw, nothing, strict=True))
        for side in _sides_of(raw)
    }
    shown = {side: f"{share:.2f}" for side, share in kept.items()}
    yield Row(
        "rate kept",
        **shown,
        remarks=f"of {median(nothing):,.0f} connections a second untraced; goal: 0.85",
    )
    rows = {
        side: f"{median(each[side]['rows of the generator'] / _connections(each[side]) for each in raw):.0f}"
        for side in shown
    }
    yield Row("rows a connection", **rows, remarks="both its ends")
    yield _compared(raw, "CPU a row", "µs", lambda each: each["cpu_ns"] / each["rows"] / 1e3)
    yield _compared(raw, "CPU a connection", "µs", lambda each: each["cpu_ns"] / _connections(each) / 1e3)
    lost = {side: f"{_lost_share(raw, side):.1%}" for side in shown}
    yield Row("rows lost", **lost)


def _lost_share(raw: list[Raw], side: str) -> float:
    lost = sum(each[side]["lost"] for each in raw)
    return float(lost / sum(each[side]["lost"] + each[side]["rows"] for each in raw))


def _rate(raw: Raw) -> float:
    return float(raw["generator"]["connections"] / raw["generator"]["seconds"])


def _bpf_time(raw: list[Raw]) -> Iterator[Row]:
    per_connection: Callable[[Raw], float] = lambda each: each["bpf_ns"] / _connections(each) / 1e3  # noqa: E731
    yield _compared(raw, "BPF time a connection", "µs", per_connection, "goal: 4 µs")
    runs = {side: median(each[side]["bpf_runs"] / _connections(each[side]) for each in raw) for side in _sides_of(raw)}
    yield Row("programs run for one", **{side: f"{count:.0f}" for side, count in runs.items()})
    empty = median(each["empty program"]["run_ns"] for each in raw)
    measuring = {side: f"{count * empty / 1e3:.2f} µs" for side, count in runs.items()}
    yield Row("of it, to measure them", **measuring, remarks=f"a program that does nothing is {empty:.0f} ns a run")


def _latency(raw: Raw) -> Iterator[Row]:
    for share, at in (("half of them", 50), ("90 %", 90), ("99 %", 99)):
        for pace, sides in raw.items():
            shown = {
                side: f"{quantiles(delays, n=100, method='inclusive')[at - 1] * 1e3:.1f} ms"
                for side, delays in sides.items()
            }
            yield Row(f"{share} within, {pace}", **shown)
    for pace, sides in raw.items():
        shown = {side: f"{max(delays) * 1e3:.1f} ms" for side, delays in sides.items()}
        goal = f"of {len(sides['pytracecon'])}; goal: 50 ms"
        yield Row(f"the last, {pace}", **shown, remarks=goal)


def _loss_free(raw: Raw) -> Iterator[Row]:
    sustained = raw["sustained"]
    sides = [side for side in SIDES if side in sustained]
    shown = {side: f"{sustained[side]['rate']:,}" for side in sides}
    untraced = sustained["untraced"]["connections"] / sustained["untraced"]["seconds"]
    seconds = sustained["pytracecon"]["seconds"]
    yield Row(
        "connections a second", **shown, remarks=f"for {seconds:.0f} s; two threads make {untraced:,.0f} untraced"
    )
    above = {side: _first_loss(sustained[side]) for side in sides}
    yield Row("and above that", **above)
    for each in raw["burst"]:
        told = each["found"] + each["lost"].get("ring", 0)
        exact = "exactly" if told == each["expected"] else "NOT"
        verdict = f"of {each['expected']:,} made; with those told lost, {exact} all of them"
        yield Row("events that a stopped reader finds", f"{each['found']:,}", remarks=verdict)
    for each in raw["burst"][:1]:
        events, size, ring = (
            sum(each["events of a connection"].values()),
            each["bytes a connection"],
            each["ring bytes"],
        )
        formula = f"{ring:,} bytes, {size} for the {events} events of a connection: {ring // size:,} connections"
        yield Row("and by the formula", f"{ring * events / size:,.0f}", remarks=formula)


def _first_loss(side: Raw) -> str:
    """What went wrong in the trial nearest above the rate that held."""
    above = [trial for trial in side["trials"] if trial["asked"] > side["rate"]]
    if not above:
        return "nothing tried"
    trial = min(above, key=lambda trial: int(trial["asked"]))
    missing = trial["expected"] - trial["found"]
    if missing > 0 or trial["lost"]:
        where = ", ".join(f"{where} {count:,}" for where, count in trial["lost"].items()) or f"{missing:,}, untold"
        return f"lost: {where}"
    return "it cannot be made"


def _growth(raw: Raw) -> Iterator[Row]:
    for each in [*raw["steps"], raw["without room"]]:
        cpu = median(load["cpu_ns"] / load["events"] for load in each["loads"]) / 1e3
        bpf = median(load["bpf_ns"] / load["generator"]["connections"] for load in each["loads"]) / 1e3
        maps, pss = each["map_bytes"] / 1e6, each["pss_kb"] / 1024
        name = f"{each['open']:,} open" + (", default room" if each is raw["without room"] else "")
        lost = "".join(f", {count:,} told lost ({where})" for where, count in each["lost"].items())
        yield Row(
            name, f"{cpu:.2f} µs", remarks=f"BPF {bpf:.2f} µs a connection, PSS {pss:.1f} MB, maps {maps:.1f} MB{lost}"
        )


def _reader(raw: Raw) -> Table:
    rows = []
    for name, seconds in raw["seconds"].items():
        goal = raw.get("goals", {}).get(name)
        best, mostly = (raw["events"] / taken for taken in (min(seconds), median(seconds)))
        rows.append((name, f"{1e6 / best:.3f} µs", f"{best:,.0f}", f"{mostly:,.0f}", f"goal: {goal:,}" if goal else ""))
    return Table(("", "an event", "a second, at best", "mostly", ""), rows)


def _peers(raw: Raw) -> Table:
    rows = []
    for name, side in raw["sides"].items():
        started = side["started"]
        size = side["bytes"]
        rows.append(
            (
                name,
                f"{median(each['seconds'] for each in started) * 1e3:,.0f} ms",
                f"{median(each['cpu_ns'] for each in started) / 1e6:,.0f} ms",
                f"{median(each['pss_kb'] for each in started) / 1024:.1f} MB",
                f"{median(side['help_seconds']) * 1e3:,.0f} ms",
                f"{size['own'] / 1e6:.1f} MB",
                f"{size['libraries'] / 1e6:.1f} MB",
                f"as a wheel {size['packed'] / 1e6:.2f} MB" if "packed" in size else side["remarks"],
            )
        )
    rows += [(name, *[""] * 6, f"not here: {why}") for name, why in raw["absent"].items()]
    return Table(("", "first row", "CPU of it", "PSS", "--help", "size", "needs", ""), rows)


def _names(raw: Raw) -> Iterator[Row]:
    costs = {side: [_call_us(each[side]) for each in raw["cost"]] for side in ("off", "on")}
    added = [on - off for on, off in zip(costs["on"], costs["off"], strict=True)]
    note = f"of {median(costs['off']):.1f} µs untraced, {min(added):.1f} to {max(added):.1f} µs; goal: 5 µs"
    yield Row("added to getaddrinfo", f"{median(added):.1f} µs", remarks=note)
    for each in (*raw["delivery"], raw["many"]):
        expected, found = each["generator"]["lookups"], each["found"].get("lookup", 0)
        rate = expected / each["generator"]["seconds"]
        lost = each["found"].get("lost", 0)
        verdict = "every one of them" if found == expected and not lost else f"{lost} records said to be lost"
        yield Row(f"lookups of {expected}, {each['way']}", str(found), remarks=f"{rate:,.0f} a second: {verdict}")
    many = raw["many"]
    note = f"{many['peak_rss_kb'] / 1024:.0f} MB RSS at most; goal: 100 MB"
    yield Row(f"PSS after {many['generator']['lookups']} names", f"{many['pss_kb'] / 1024:.1f} MB", remarks=note)


def _snapshot(raw: Raw) -> Iterator[Row]:
    seconds, cpu = raw["seconds"], raw["cpu_seconds"]
    spread = f"{min(seconds) * 1e3:.0f} to {max(seconds) * 1e3:.0f} ms, {median(cpu) * 1e3:.0f} ms of CPU; goal: 500 ms"
    yield Row(f"snapshot of {raw['connections']}", f"{median(seconds) * 1e3:.0f} ms", remarks=spread)
    yield Row("the first one", f"{raw['first_seconds'] * 1e3:.0f} ms")


def _top(raw: list[Raw]) -> Iterator[Row]:
    for each in raw:
        share = each["cpu_ns"] / 1e9 / each["seconds"]
        note = f"of a core, one refresh a second, {each['bytes'] / each['seconds']:,.0f} B/s drawn; goal: 10 %"
        yield Row(f"top of {each['connections']} by {each['by']}", f"{share:.1%}", remarks=note)


def _throughput(raw: dict[str, list[Raw]]) -> Iterator[Row]:
    for kind, goal, unit, per in (("tcp", "97 %", "GB", 1e9), ("udp", "85 %", "thousand datagrams", 1e3)):
        kept = [each["traced"] / each["alone"] for each in raw[kind]]
        alone = median(each["alone"] for each in raw[kind]) / per
        note = f"{min(kept):.1%} to {max(kept):.1%} of {alone:.1f} {unit} a second untraced; goal: {goal}"
        yield Row(f"{kind} throughput kept", f"{median(kept):.1%}", remarks=note)


def _call_us(raw: Raw) -> float:
    return float(raw["calls_seconds"] / raw["lookups"] * 1e6)


_TABLES: dict[str, Callable[[Any], Table]] = {
    "start": _of_sides(_start),
    "delivery": _of_sides(_delivery),
    "cost": _of_sides(_cost),
    "bpf_time": _of_sides(_bpf_time),
    "latency": _of_sides(_latency),
    "loss_free": _of_sides(_loss_free),
    "growth": _of_sides(_growth),
    "reader": _reader,
    "steps": _reader,
    "peers": _peers,
    "guest": _peers,
    "names": _of_sides(_names),
    "snapshot": _of_sides(_snapshot),
    "top": _of_sides(_top),
    "throughput": _of_sides(_throughput),
}
