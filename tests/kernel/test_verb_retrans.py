"""`pytracecon retrans` as a process, in a network that loses packets: its counts are those of the kernel."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from traffic.actor import Actor
from traffic.end import End, begin_connect, close, listen, pair
from traffic.network import Network
from traffic.peers import Ours, tracing

FOUR, SIX = "127.0.0.1", "::1"


@dataclass
class Bad:
    """A network that loses the first SYN of each family and a segment of data, where they would be received."""

    network: Network
    client: Actor
    server: Actor

    def lose(self, *matches: str) -> None:
        """The first packet that matches, of each."""
        rules = [
            rule
            for match in matches
            for rule in (f"{match} limit rate over 1/hour burst 1 packets accept", f"{match} drop")
        ]
        chain = "add table inet bad; add chain inet bad in { type filter hook input priority 0; }"
        script = "; ".join(["flush ruleset", chain, *(f"add rule inet bad in {rule}" for rule in rules)])
        self.network.run("nft", script)

    def traffic(self) -> None:
        """A connection of each family whose SYN is lost; then data of the first, which ends with a reset."""
        self.listeners = [listen(self.server, FOUR, 8085), listen(self.server, SIX, 8086)]
        self.lose(*(f"meta nfproto {family} tcp flags & (syn|ack) == syn" for family in ("ipv4", "ipv6")))
        attempts = [begin_connect(self.client, listener.address) for listener in self.listeners]
        nears = [attempt.finish() for attempt in attempts]
        fars = [listener.accept() for listener in self.listeners]
        for near, far in zip(nears, fars, strict=True):
            near.peer, far.peer = far, near
        self.lose("tcp dport 8085 meta length > 200")
        nears[0].send(20_000)
        fars[0].receive_all()
        nears[0].reset()
        fars[0].await_end()
        fars[0].close()
        close(nears[1], fars[1])
        self.nears = nears

    def tell(self, lines: list[str]) -> dict[str, list[str]]:
        tools = {line: Ours("retrans", f"{line} --netns {self.network.path}") for line in lines}
        with tracing(tools.values()):
            self.traffic()
            return {line: tool.lines() for line, tool in tools.items()}


@pytest.fixture
def bad(network: Network) -> Bad:
    return Bad(network, network.actor("client"), network.actor("server"))


def shown(end: End) -> tuple[str, str]:
    assert end.local
    near, far = (f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}" for addr, port in (end.local, end.remote))
    return near, far


@pytest.mark.slow(reason="what the kernel tells, test_states.py holds against the ends and its counts")
def test_counts_are_the_kernel_s_own(bad: Bad) -> None:
    wrote = bad.tell(["-c", "--segment"])
    header, *rows = (line.split() for line in wrote["-c"])
    assert header == ["LADDR:LPORT", "RADDR:RPORT", "RETRANSMITS"]
    assert {tuple(row[:2]) for row in rows} == {shown(near) for near in bad.nears}
    assert sum(int(row[2]) for row in rows) == bad.client.segments_resent
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), key=int, reverse=True)
    header, *rows = (line.split() for line in wrote["--segment"])
    assert header == ["TIME", "PID", "IP", "LADDR:LPORT", "T>", "RADDR:RPORT", "STATE", "SEGMENT", "SEGMENTS"]
    assert sum(int(row[8]) for row in rows) == bad.client.segments_resent
    assert sum(int(row[8]) for row in rows if row[7] in ("SYN", "SYNACK")) == bad.network.syns_resent == 2
    assert {tuple(row[6:8]) for row in rows} == {("SYN_SENT", "SYN"), ("ESTABLISHED", "DATA")}


@pytest.mark.slow(reason="what the kernel tells, test_states.py holds against the ends and its counts")
def test_what_a_path_of_an_mptcp_connection_sends_again_is_told(bad: Bad) -> None:
    if bad.client.attempt("socket", 4, "mptcp").errno:
        pytest.skip("no MPTCP in this kernel")
    tool = Ours("retrans", f"-c --netns {bad.network.path}")
    with tracing([tool]):
        near, far = pair(bad.client, listen(bad.server, port=8085, mptcp=True))
        bad.lose("tcp dport 8085 meta length > 200")
        near.send(5000)
        far.receive_all()
        close(near, far)
        rows = [line.split() for line in tool.lines()[1:]]
    assert [tuple(row[:2]) for row in rows] == [shown(near)]
    assert int(rows[0][2]) == bad.client.segments_resent > 0


@pytest.mark.slow(reason="starts a Python for each option, that no kernel has a say in")
def test_each_option_of_retrans(bad: Bad) -> None:
    by_pid = f"-p {bad.server.pid}"
    wrote = bad.tell(["", "-4", "-6", by_pid, "--reset", "--format json"])
    header, *rows = (line.split() for line in wrote[""])
    assert header == ["TIME", "PID", "IP", "LADDR:LPORT", "T>", "RADDR:RPORT", "STATE"]
    four, six = (shown(near) for near in bad.nears)
    assert {(row[1], row[2], row[3], row[4], row[5]) for row in rows} == {
        (str(bad.client.pid), "4", four[0], "R>", four[1]),
        (str(bad.client.pid), "6", six[0], "R>", six[1]),
    }
    assert [row[1:] for row in rows if row[2] == "4"] == [line.split()[1:] for line in wrote["-4"][1:]]
    assert [row[1:] for row in rows if row[2] == "6"] == [line.split()[1:] for line in wrote["-6"][1:]]
    assert wrote[by_pid][1:] == [], "it sent nothing again"
    resets = [line.split()[1:8] for line in wrote["--reset"][1:] if " RST " in line]
    assert sorted(resets) == sorted(
        [
            [str(bad.client.pid), "4", four[0], "R>", four[1], "ESTABLISHED", "RST"],
            [str(bad.server.pid), "4", four[1], "<R", four[0], "ESTABLISHED", "RST"],
        ]
    )
    assert len(wrote["--format json"]) == len(rows)
