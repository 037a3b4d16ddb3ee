"""What the paths of cgroups say: each shape as its maker spells it, and nothing of what only looks like one."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.owners.shapes import Place, place_of, user_of

A = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970"
B = "aaefb9d8feed2d453b543f6d928cede7a4dbefa6a0ae7c9b990dd234c56e93b9"
UID = "2fc932ce-fdcc-454b-97bd-aadfdeb4c340"
UID_ = UID.replace("-", "_")
STATIC = "89f4f2cb511c3b0b7e5272cff5ec37bf"
TASK = "bf1ddbfbbc8f45c9b1ac4f779368741e"
ROOTLESS = "/user.slice/user-1000.slice/user@1000.service"
NOTHING = Place(None, None, None)


def place(container: str | None = None, unit: str | None = None, pod: str | None = None) -> Place:
    return Place(container, pod, unit)


DOCKER = {
    # Docker, "Runtime metrics": with the cgroupfs driver, and with the systemd driver.
    f"/docker/{A}": place(A),
    f"/system.slice/docker-{A}.scope": place(A, f"docker-{A}.scope"),
    # The same: --cgroup-parent.
    f"/web/{A}": place(A),
    f"/web.slice/docker-{A}.scope": place(A, f"docker-{A}.scope"),
    # The same: rootless mode.
    f"{ROOTLESS}/user.slice/docker-{A}.scope": place(A, f"docker-{A}.scope"),
    f"{ROOTLESS}/user.slice/docker.service": place(unit="docker.service"),
    # Docker in Docker, and a systemd in a container.
    f"/docker/{A}/docker/{B}": place(B),
    f"/docker/{A}/system.slice/nginx.service": place(A, "nginx.service"),
    f"/system.slice/docker-{A}.scope/init.scope": place(A, "init.scope"),
    # The daemons.
    "/system.slice/docker.service": place(unit="docker.service"),
    "/system.slice/containerd.service": place(unit="containerd.service"),
    # amazon-ecs-agent, #1119, #3127 and #4077; dd-trace-rb, #1457: Fargate 1.4.
    f"/ecs/{TASK}/{A}": place(A),
    f"/ecs/48cb34f5-cd39-4d59-9bb9-89f3c1611afd/{A}": place(A),
    f"/ecstasks.slice/ecstasks-{TASK}.slice/docker-{A}.scope": place(A, f"docker-{A}.scope"),
    f"/ecs/{TASK}/{TASK}-1234567890": place(f"{TASK}-1234567890"),
    f"/ecs/{TASK}-1234567890": place(f"{TASK}-1234567890"),
    f"/ecs/{TASK}": NOTHING,
}
CONTAINERD = {
    # nerdctl, docs/faq.md and docs/config.md: with the drivers cgroupfs (/NAMESPACE/ID) and systemd; rootless.
    f"/default/{A}": place(A),
    f"/system.slice/nerdctl-{A}.scope": place(A, f"nerdctl-{A}.scope"),
    f"{ROOTLESS}/user.slice/nerdctl-{A}.scope": place(A, f"nerdctl-{A}.scope"),
    # containerd/cri, #290.
    f"/system.slice/system-getty.slice/cri-containerd-{A}.scope": place(A, f"cri-containerd-{A}.scope"),
}
KUBERNETES = {
    # kubernetes, pkg/kubelet/cm, and its #104039: systemd, by quality of service; a static pod (containerd, #4857).
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice/cri-containerd-{A}.scope": place(
        A, f"cri-containerd-{A}.scope", UID
    ),
    f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice/crio-{A}.scope": place(
        A, f"crio-{A}.scope", UID
    ),
    f"/kubepods.slice/kubepods-pod{UID_}.slice/docker-{A}.scope": place(A, f"docker-{A}.scope", UID),
    f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice": place(pod=STATIC),
    # The same: cgroupfs.
    f"/kubepods/burstable/pod{UID}/{A}": place(A, pod=UID),
    f"/kubepods/besteffort/pod{UID}/{A}": place(A, pod=UID),
    f"/kubepods/pod{UID}/{A}": place(A, pod=UID),
    f"/kubepods/burstable/pod{STATIC}/{A}": place(A, pod=STATIC),
    # runc's own spelling of a systemd path, taken for a cgroupfs one (kubernetes, #104039; runwasi, #821).
    f"/kubepods-burstable-pod{UID_}.slice:cri-containerd:{A}": place(A, pod=UID),
    f"/system.slice/containerd.service/kubepods-pod{UID_}.slice:cri-containerd:{A}": place(
        A, "containerd.service", UID
    ),
    # kind: a cluster in a container (containerd/nri, #227).
    f"/docker/{B}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
    f"kubelet-kubepods-besteffort-pod{UID_}.slice/cri-containerd-{A}.scope": place(A, f"cri-containerd-{A}.scope", UID),
    f"/docker/{B}/kubelet/kubepods/burstable/pod{UID}/{A}": place(A, pod=UID),
    f"/docker/{B}/system.slice/kubelet.service": place(B, "kubelet.service"),
    # usernetes, #200.
    f"{ROOTLESS}/u7s-rootlesskit.service/kubepods/burstable/pod{UID}/{A}": place(A, "u7s-rootlesskit.service", UID),
    # A container in a pod that has containers of its own.
    f"/kubepods/burstable/pod{UID}/{A}/docker/{B}": place(B, pod=UID),
}
CRIO = {
    # cri-o, #812; its monitor (microshift, #697) is not the container.
    f"/kubepods/burstable/pod{UID}/crio-{A}": place(A, pod=UID),
    f"/system.slice/crio-conmon-{A}.scope": place(unit=f"crio-conmon-{A}.scope"),
    f"/kubepods.slice/kubepods-pod{UID_}.slice/crio-conmon-{A}.scope": place(unit=f"crio-conmon-{A}.scope", pod=UID),
    f"/kubepods/burstable/pod{UID}/crio-conmon-{A}": place(pod=UID),
}
PODMAN = {
    # podman, #507 and #13673.
    f"/machine.slice/libpod-{A}.scope": place(A, f"libpod-{A}.scope"),
    f"/machine.slice/libpod-{A}.scope/container": place(A, f"libpod-{A}.scope"),
    f"/machine.slice/libpod-{A}.scope/container/system.slice/sshd.service": place(A, "sshd.service"),
    f"/machine.slice/libpod-conmon-{A}.scope": place(unit=f"libpod-conmon-{A}.scope"),
    f"{ROOTLESS}/user.slice/libpod-{A}.scope/container": place(A, f"libpod-{A}.scope"),
    # podman, #6400: pods.
    f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope": place(A, f"libpod-{A}.scope", B),
    f"{ROOTLESS}/user.slice/user-libpod_pod_{B}.slice/libpod-{A}.scope/container": place(A, f"libpod-{A}.scope", B),
    # podman, libpod/container_internal_linux.go: cgroupfs; a pod's folder has the pod's id, in it its containers.
    f"/libpod_parent/libpod-{A}": place(A),
    f"/libpod_parent/{B}/libpod-{A}": place(A),
    "/libpod_parent/conmon": NOTHING,
    f"/libpod-parent/libpod-conmon-{A}": NOTHING,
    # podman, #16589: --cgroups=split, as Quadlet has it.
    f"/system.slice/web.service/libpod-payload-{A}": place(A, "web.service"),
    "/system.slice/web.service/runtime": place(unit="web.service"),
    # Its health checks are transient units that are named by the id, and run outside.
    f"/system.slice/{A}.service": place(unit=f"{A}.service"),
    f"/system.slice/{A}-5f3c.service": place(unit=f"{A}-5f3c.service"),
}
MACHINES = {
    # lxc.container.conf(5), lxc.cgroup.dir; canonical/lxd, #5603 and #7104; before LXC 3.1, before 4.0, now.
    "/lxc/x1/system.slice/snapd.service": place("x1", "snapd.service"),
    "/lxc.payload/x1/init.scope": place("x1", "init.scope"),
    "/lxc.payload.Blog/system.slice/apache2.service": place("Blog", "apache2.service"),
    "/lxc.monitor/x1": NOTHING,
    "/lxc.monitor.Blog": NOTHING,
    "/lxc.pivot": NOTHING,
    "/lxc": NOTHING,
    "/lxc.payload.": NOTHING,
    # Proxmox VE: numbers, and a folder for the container's own namespace.
    "/lxc/101/ns/system.slice/cron.service": place("101", "cron.service"),
    # LXD and Incus: a project goes before the name.
    "/lxc.payload.user-1000_db/init.scope": place("user-1000_db", "init.scope"),
    # Containers of LXC in one of LXC, Docker in it, and one that is called like the folder.
    "/lxc.payload.outer/lxc.payload.inner/init.scope": place("inner", "init.scope"),
    f"/lxc.payload.outer/system.slice/docker-{A}.scope": place(A, f"docker-{A}.scope"),
    "/lxc.payload.outer/lxc.monitor.inner": place("outer"),
    "/lxc/lxc/init.scope": place("lxc", "init.scope"),
    # systemd, docs/CGROUP_DELEGATION.md and its #18104, #38440.
    "/machine.slice/machine-rawhide.scope/payload/system.slice/dbus.service": place("rawhide", "dbus.service"),
    r"/machine.slice/machine-TEST\x2d13.machinectl\x2dbind.7ye.scope/payload": place(
        "TEST-13.machinectl-bind.7ye", r"machine-TEST\x2d13.machinectl\x2dbind.7ye.scope"
    ),
    "/machine.slice/machine-rawhide.scope/supervisor": place(unit="machine-rawhide.scope"),
    "/machine.slice/systemd-nspawn@rawhide.service/payload/init.scope": place("rawhide", "init.scope"),
    "/machine.slice/systemd-nspawn@my-box.service/payload": place("my-box", "systemd-nspawn@my-box.service"),
    "/machine.slice/systemd-nspawn@rawhide.service/supervisor": place(unit="systemd-nspawn@rawhide.service"),
    # libvirt, docs/cgroups.rst: LXC has containers, QEMU has none.
    r"/machine.slice/machine-lxc\x2d1268\x2dsl.scope/libvirt": place("lxc-1268-sl", r"machine-lxc\x2d1268\x2dsl.scope"),
    r"/machine.slice/machine-qemu\x2d1\x2dvm1.scope/libvirt/emulator": place(unit=r"machine-qemu\x2d1\x2dvm1.scope"),
}
UNITS = {
    # systemd.unit(5), systemd.slice(5), docs/CGROUP_DELEGATION.md.
    "": NOTHING,
    "/": NOTHING,
    "/init.scope": place(unit="init.scope"),
    "/system.slice": NOTHING,
    "/system.slice/ssh.service": place(unit="ssh.service"),
    "/system.slice/ssh.service/below/it": place(unit="ssh.service"),
    "/system.slice/system-getty.slice/getty@tty1.service": place(unit="getty@tty1.service"),
    r"/system.slice/system-systemd\x2dfsck.slice/systemd-fsck@dev-disk-by\x2duuid-1\x2d2.service": place(
        unit=r"systemd-fsck@dev-disk-by\x2duuid-1\x2d2.service"
    ),
    "/user.slice/user-1000.slice/session-3.scope": place(unit="session-3.scope"),
    f"{ROOTLESS}/init.scope": place(unit="init.scope"),
    f"{ROOTLESS}/app.slice/app-org.gnome.Terminal.slice/vte-spawn-{UID}.scope": place(unit=f"vte-spawn-{UID}.scope"),
    # systemd, src/core: units of these types may have processes.
    "/system.slice/cups.socket": place(unit="cups.socket"),
    "/system.slice/srv-data.mount": place(unit="srv-data.mount"),
    r"/system.slice/dev-disk-by\x2duuid-1.swap": place(unit=r"dev-disk-by\x2duuid-1.swap"),
    # systemd, cg_escape() in src/basic/cgroup-util.c.
    "/system.slice/_memory.service": place(unit="memory.service"),
    "/system.slice/__x.service": place(unit="_x.service"),
}
REAL = {**DOCKER, **CONTAINERD, **KUBERNETES, **CRIO, **PODMAN, **MACHINES, **UNITS}


@pytest.mark.parametrize("path", REAL)
def test_a_path_tells_where_its_processes_run(path: str) -> None:
    assert place_of(path) == REAL[path]


LOOKALIKES = [
    f"/docker/{A[:-1]}",
    f"/docker/{A}0",
    f"/docker/{A.upper()}",
    f"/docker/{A}.scope.d",
    f"/docker-{A[:12]}.slice",
    f"/poduid/pod{UID}",
    f"/pod{UID}",
    f"/kubepods/burstable/pod{UID}0",
    f"/kubepods/burstable/pod{UID[:-1]}",
    f"/kubepods-critical-pod{UID_}.slice",
    "/kubepods/burstable/podx",
    "/libpod_pod_1.slice",
    "/system.slice/.service",
    "/system.slice/@x.service",
    "/system.slice/getty@.service",
    "/system.slice/a b.service",
    "/system.slice/a\n.service",
    "/system.slice/x.service\n",
    "/system.slice/é.service",
    "/system.slice/x.timer",
    f"/system.slice/{'x' * 248}.service",
    "/machine-.scope.d",
    "/systemd-nspawn@.service/payload",
    f"/ecs2/{TASK}-12",
]


@pytest.mark.parametrize("path", LOOKALIKES)
def test_what_only_looks_like_one_tells_nothing(path: str) -> None:
    assert place_of(path) == NOTHING


def test_a_unit_may_be_as_long_as_systemd_lets_it() -> None:
    longest = "x" * 247 + ".service"
    assert place_of(f"/system.slice/{longest}").unit == longest


def test_the_user_whose_systemd_it_is_is_told_where_nobody_else_can_have_made_it() -> None:
    assert user_of(f"{ROOTLESS}/user.slice/docker-{A}.scope") == 1000
    assert user_of(ROOTLESS) == 1000
    assert user_of(f"/docker/{A}{ROOTLESS}/app.slice") is None
    assert user_of("/user.slice/user-1000.slice/session-3.scope") is None
    assert user_of("/user.slice/user-1000.slice/user@1001.service") is None
    assert user_of("/user.slice/user-1000.slice/user@1000.service.d") is None
    assert user_of("/") is None


PARTS = st.sampled_from(
    sorted({part for path in REAL for part in path.split("/")} | {"payload", "supervisor", "lxc", "conmon", ".", ".."})
)
ANY_PART = (
    PARTS | st.text(max_size=300).map(lambda text: text.replace("/", "")) | st.binary(max_size=80).map(os.fsdecode)
)
PATHS = st.lists(ANY_PART, max_size=40).map("/".join)


@given(PATHS | st.text())
def test_no_path_is_too_strange(path: str) -> None:
    found = place_of(path)
    parts = path.split("/")
    assert found.unit is None or any(part in (found.unit, "_" + found.unit) for part in parts)
    assert found.pod is None or re.fullmatch(
        r"[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found.pod
    )
    assert found.container != ""


@given(PATHS, st.sampled_from(sorted(REAL)))
def test_what_is_innermost_counts_whatever_is_around_it(outside: str, inside: str) -> None:
    outside += "/x/y"
    around, within, found = place_of(outside), REAL[inside], place_of(outside + inside)
    assert found == Place(*(inner or outer for inner, outer in zip(within, around, strict=True)))


@given(st.text(), st.integers(4_000, 9_000))
def test_of_an_endless_path_the_end_counts(text: str, times: int) -> None:
    assert place_of((text + "/x") * times + f"/docker-{A}.scope") == place(A, f"docker-{A}.scope")
