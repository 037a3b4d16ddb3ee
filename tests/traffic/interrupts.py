"""Interrupts that bring packets while programs run: a namespace's loopback hands all packets to one processor (RPS)."""

from __future__ import annotations

import os

from traffic.actor import Actor
from traffic.network import Network

STEER = "mount -t sysfs sysfs /sys && echo {} > /sys/class/net/lo/queues/rx-0/rps_cpus"


def pin(actor: Actor, cpu: int) -> Actor:
    os.sched_setaffinity(actor.pid, {cpu})
    return actor


def steer(network: Network, cpus: int) -> None:
    """All packets to these processors; to none: each stays where it is."""
    network.run("unshare", "--mount", "sh", "-c", STEER.format(cpus))
