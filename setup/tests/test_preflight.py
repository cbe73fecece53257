"""The preflight names each thing that a machine lacks, all at once, and what to do about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import preflight
import pytest
from preflight import MIB, Facts

GOOD = Facts(
    is_root=True,
    capabilities=frozenset(range(41)),
    distribution="debian 12",
    has_apt=True,
    has_mirror=True,
    tun_error="",
    overlay_error="",
    has_writable_cgroups=True,
    inotify_free=32,
    memory_available=4096 * MIB,
    disk_free={"/usr": 5000 * MIB},
    disk_needed={"/usr": 2600 * MIB},
)
LACKS = [
    ({"distribution": "fedora 40", "has_apt": False}, "Debian 12: this is fedora 40, and apt-get is not found"),
    ({"distribution": "debian 13"}, "Debian 12: this is debian 13"),
    ({"has_mirror": False}, "a Debian mirror: apt's sources do not name bookworm"),
    ({"is_root": False, "tun_error": None, "overlay_error": None, "inotify_free": None}, "root: "),
    ({"capabilities": frozenset(range(41)) - {12, 21}}, "capabilities: CAP_NET_ADMIN, CAP_SYS_ADMIN"),
    ({"tun_error": "No such file or directory"}, "/dev/net/tun: No such file or directory; run `modprobe tun`"),
    ({"overlay_error": "mount: wrong fs type"}, "overlay mounts in "),
    ({"has_writable_cgroups": False}, "control groups: none is mounted for writing"),
    ({"inotify_free": 31}, "inotify instances: 31 are free for root, 32 are needed; run `sysctl -w fs.inotify"),
    ({"memory_available": 700 * MIB}, "memory: 700 MiB are available, 750 MiB are needed"),
    ({"disk_free": {"/usr": 2599 * MIB}}, "disk space in /usr: 2599 MiB are free, 2600 MiB are needed"),
]


def test_machine_that_has_everything_lacks_nothing() -> None:
    assert preflight.missing(GOOD, 3) == []


@pytest.mark.parametrize(("change", "words"), LACKS)
def test_each_missing_thing_is_named_alone(change: dict[str, object], words: str) -> None:
    (line,) = preflight.missing(replace(GOOD, **change), 3)  # type: ignore[arg-type]
    assert line.startswith(words)


def test_all_missing_things_are_named_at_once() -> None:
    changes = {name: value for change, _ in LACKS for name, value in change.items() if value is not None}
    lines = preflight.missing(replace(GOOD, **changes), 3)  # type: ignore[arg-type]
    assert len(lines) == 9


def test_more_nodes_need_more_inotify_instances_and_memory() -> None:
    lines = preflight.missing(replace(GOOD, memory_available=1024 * MIB), 8)
    assert [line.partition(":")[0] for line in lines] == ["inotify instances", "memory"]


def test_kubernetes_needs_more_inotify_instances_and_memory() -> None:
    facts = replace(GOOD, inotify_free=52, memory_available=1500 * MIB)
    assert preflight.missing(facts, 3) == []
    lines = preflight.missing(facts, 3, preflight.WITH_KUBERNETES)
    assert [line.partition(":")[0] for line in lines] == ["inotify instances", "memory"]


def test_lab_that_is_up_needs_no_more_instances() -> None:
    assert preflight.missing(replace(GOOD, inotify_free=0, memory_available=0), 0) == []


@pytest.mark.parametrize(
    ("mounts", "is_writable"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev 0 0\n", True),
        ("cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n", True),
        ("cgroup2 /sys/fs/cgroup cgroup2 ro,nosuid,nodev 0 0\n", False),
        ("proc /proc proc rw 0 0\n", False),
    ],
)
def test_control_groups_are_writable_where_all_are_mounted_so(mounts: str, is_writable: bool) -> None:
    assert preflight._has_writable_cgroups(mounts) is is_writable


def test_file_system_with_several_parts_needs_the_sum(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preflight, "REPOSITORY", tmp_path)
    monkeypatch.setattr(preflight, "_has_packages", lambda: True)
    monkeypatch.setattr(preflight, "_has_venv", lambda: False)
    needed = preflight._disk_needed(2, preflight.PLAIN, 1)
    assert sum(needed.values()) == preflight.VENV_BYTES + preflight.ROOTFS_BYTES + 2 * preflight.PLAIN.disk


def test_each_release_without_its_root_file_system_needs_room_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preflight, "REPOSITORY", tmp_path)
    monkeypatch.setattr(preflight, "_has_packages", lambda: True)
    monkeypatch.setattr(preflight, "_has_venv", lambda: True)
    assert sum(preflight._disk_needed(0, preflight.PLAIN, 2).values()) == 2 * preflight.ROOTFS_BYTES
    for name in ("rootfs-0123456789ab", "rootfs-ba9876543210.unfinished", "rootfs.lock"):
        (tmp_path / "lab/.state/cache" / name).mkdir(parents=True)
    assert sum(preflight._disk_needed(0, preflight.PLAIN, 2).values()) == preflight.ROOTFS_BYTES


@pytest.mark.root
def test_facts_of_this_machine_suffice_for_the_lab_that_the_other_tests_build() -> None:
    facts = preflight.read_facts(1)
    assert facts.is_root
    assert preflight.missing(facts, 1) == []


@pytest.mark.root
def test_inotify_instances_are_counted_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if limit > 900:
        pytest.skip("this machine's limit is above that of open files")
    free = preflight._inotify_free(limit + 1)
    assert 0 < free <= limit
    assert preflight._inotify_free(1) == 1


@pytest.mark.root
def test_program_says_all_that_is_missing_and_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = replace(GOOD, tun_error="Operation not permitted", has_mirror=False)
    monkeypatch.setattr(preflight, "read_facts", lambda nodes, per_node, releases: lacking)
    assert preflight.main([]) == 1
    message = capsys.readouterr().err
    assert message.startswith("preflight: this machine lacks 2 of what a lab of 3 nodes needs:\n")
    assert message.count("\n  - ") == 2
