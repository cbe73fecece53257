# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The preflight says what will go wrong: each fault is made on a host of its own, and its row is read."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.filter.preflight_table import preflight_table
from ansible_collections.evio.cni.plugins.module_utils.cni import cri
from ansible_collections.evio.cni.plugins.module_utils.node import preflight
from ansible_collections.evio.cni.plugins.module_utils.node.preflight import Plans, check_host
from ansible_collections.evio.cni.plugins.module_utils.node.quick_checks import Row

from .ansible_module import run_module
from .ovs_daemons import in_namespace

pytestmark = pytest.mark.root

Rows = dict[str, dict[str, str]]


def look(netns: str, tmp_path: Path, **arguments: Any) -> Rows:
    """Return the worst row of each check on a host in the namespace."""
    given = {"host_cidr": "10.10.0.0/16", "pod_cidrs": ["10.244.0.0/16"], "conf_dir": str(tmp_path), **arguments}
    result = run_module("preflight_info", netns=netns, **given)
    assert "rows" in result, result
    order = ["error", "warning", "ok"]
    return {row["check"]: row for row in sorted(result["rows"], key=lambda row: -order.index(row["state"]))}


def test_host_in_order_has_no_error(netns: str, tmp_path: Path) -> None:
    rows = look(netns, tmp_path)
    assert [row for row in rows.values() if row["state"] == "error"] == []
    expected = {"Python", "nftables", "tun", "WireGuard", "datapath", "ports", "networks", "link-local"}
    expected |= {"firewalls", "rp_filter", "other CNI", "managers", "inotify", "DNS", "MTU", "NAT"}
    assert set(rows) == expected
    assert all(bool(row["remedy"]) == (row["state"] != "ok") for row in rows.values())


@pytest.mark.parametrize(
    ("check", "state", "commands", "what", "remedy"),
    [
        (
            "networks",
            "error",
            ["ip link add lan type bridge", "ip address add 10.244.7.1/24 dev lan"],
            "the interface lan has the address 10.244.7.1/24, inside the pod overlay",
            "evio_pod_cidr",
        ),
        (
            "link-local",
            "warning",
            ["ip link add dns type bridge", "ip address add 169.254.20.10/32 dev dns"],
            "169.254.20.10",
            "ss -ltunp",
        ),
        ("rp_filter", "warning", ["sysctl -qw net.ipv4.conf.all.rp_filter=1"], "rp_filter is 1", "rp_filter=2"),
        (
            "firewalls",
            "error",
            [
                "nft add table inet site",
                "nft add chain inet site forward { type filter hook forward priority 0 ; policy drop ; }",
            ],
            "inet site forward drops forwarded packets",
            "nft",
        ),
        (
            "other CNI",
            "warning",
            ["ip link add flannel.1 type bridge"],
            "has left flannel.1",
            "ip link delete flannel.1",
        ),
    ],
)
def test_fault_of_the_host_is_told_with_its_remedy(
    netns: str, tmp_path: Path, check: str, state: str, commands: list[str], what: str, remedy: str
) -> None:
    for command in commands:
        in_namespace(netns, *command.split())
    row = look(netns, tmp_path)[check]
    assert row["state"] == state, row
    assert what in row["what"]
    assert remedy in row["remedy"]


def test_port_of_another_program_is_told(netns: str, tmp_path: Path) -> None:
    listener = (
        "import socket, sys; s = socket.socket(2, 2); s.bind(('', 51820)); print(1, flush=True); sys.stdin.read()"
    )
    command = ["nsenter", f"--net=/run/netns/{netns}", "python3", "-c", listener]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        row = look(netns, tmp_path)["ports"]
        process.kill()
    assert (row["state"], row["what"]) == ("error", "UDP port 51820 is used by another program")
    assert "ss -ulpn" in row["remedy"]


def test_port_of_the_runs_own_responder_is_free(netns: str, tmp_path: Path) -> None:
    in_namespace(netns, "ip", "link", "set", "lo", "up")
    with ThreadPoolExecutor(1) as thread:
        answers = thread.submit(run_module, "nat_responder", netns=netns, nat_token="x" * 32, seconds=8)
        deadline = time.monotonic() + 8
        while "51820" not in in_namespace(netns, "ss", "-uln").stdout and time.monotonic() < deadline:
            time.sleep(0.1)
        rows = look(netns, tmp_path, is_relay=True, nat_token="x" * 32)
        assert look(netns, tmp_path, nat_token="y" * 32)["ports"]["state"] == "error"
        assert answers.result()["answered"] == 1
    assert rows["ports"]["state"] == "ok"


def test_file_of_another_network_that_sorts_first_is_told(netns: str, tmp_path: Path) -> None:
    (tmp_path / "05-cilium.conflist").write_text(json.dumps({"name": "cilium", "plugins": []}))
    row = look(netns, tmp_path)["other CNI"]
    assert row["state"] == "error"
    assert "05-cilium.conflist sorts before" in row["what"]
    assert "remove it" in row["remedy"]


def test_name_without_an_address_is_told(netns: str, tmp_path: Path) -> None:
    row = look(netns, tmp_path, relays={"cloud": "relay.invalid:51820"})["DNS"]
    assert row["state"] == "error"
    assert "relay.invalid" in row["what"]


def test_path_that_carries_too_little_is_told(netns: str, tmp_path: Path) -> None:
    for command in (
        "ip link add up0 type bridge",
        "ip link set up0 up mtu 1300",
        "ip address add 192.0.2.7/24 dev up0",
    ):
        in_namespace(netns, *command.split())
    row = look(netns, tmp_path, relays={"cloud": "192.0.2.1:51820"})["MTU"]
    assert (row["state"], "1300 bytes" in row["what"]) == ("error", True)
    assert "mtu 1500" in row["remedy"]


def test_relays_that_do_not_answer_are_told(netns: str, tmp_path: Path) -> None:
    relays = {"cloud1": "192.0.2.1:51820", "cloud2": "192.0.2.2:51820"}
    row = look(netns, tmp_path, relays=relays, nat_token="x" * 32)["NAT"]
    assert row["state"] == "error"
    assert "no relay answers by UDP: cloud1, cloud2" in row["what"]


def rows_of(check: Callable[[Plans], Any]) -> list[Row]:
    return list(check(Plans("10.10.0.0/16", ("10.244.0.0/16",))))


def test_old_python_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 3 7\n")
    old.chmod(0o755)
    monkeypatch.setattr(preflight, "INTERPRETER", str(old))
    [row] = rows_of(preflight._python)
    assert (row.state, "is 3.7" in row.what) == ("error", True)


def test_missing_features_of_the_kernel_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.RulesetGeneration, "read", lambda _generation: None)
    monkeypatch.setattr(preflight, "_has_module", lambda _name: False)
    monkeypatch.setattr(preflight, "probe_datapath", lambda: "netdev")
    monkeypatch.setattr(preflight.os.path, "exists", lambda _path: False)  # type: ignore[attr-defined]
    states = {row.check: row.state for row in rows_of(preflight._kernel)}
    assert states == {
        "nftables": "error",
        "namespaces": "error",
        "tun": "error",
        "WireGuard": "warning",
        "datapath": "warning",
    }


def test_few_inotify_instances_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cri, "inotify_instances", lambda: (120, 128))
    [row] = rows_of(preflight._inotify)
    assert row.state == "error"
    assert "max_user_instances" in row.remedy


def test_network_manager_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preflight, "_MANAGERS", {"dhcpcd": str(tmp_path)})
    [row] = rows_of(preflight._managers)
    assert (row.state, "dhcpcd runs" in row.what) == ("warning", True)


def test_check_that_cannot_look_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> tuple[int, int]:
        raise OSError("no /proc")

    monkeypatch.setattr(cri, "inotify_instances", fail)
    rows, kind = check_host(Plans("10.10.0.0/16", ("10.244.0.0/16",)))
    [row] = [row for row in rows if row.check == "inotify"]
    assert (row.state, row.what, kind) == ("warning", "not known: no /proc", "unknown")


def test_table_tells_errors_first_and_the_same_sentence_once() -> None:
    bad = {"check": "ports", "state": "error", "what": "the port is used", "remedy": "ss"}
    fair = {"check": "clock", "state": "warning", "what": "it is late", "remedy": "date"}
    good = {"check": "tun", "state": "ok", "what": "there", "remedy": ""}
    hosts = [
        {"inventory_hostname": "a", "__evio_preflight": {"rows": [good, fair], "nat": "endpoint-dependent"}},
        {"inventory_hostname": "b", "__evio_preflight": {"rows": [good, fair, bad], "nat": "endpoint-dependent"}},
        {"inventory_hostname": "c", "__evio_preflight": {"unreachable": True, "msg": "timed out"}},
    ]
    assert preflight_table(hosts, {"msg": "etcd refuses"}) == [
        "ERROR    ports       b: the port is used",
        "                     -> ss",
        "ERROR    host        c: it did not answer: timed out",
        "                     -> ansible -m ping",
        "ERROR    etcd        the first control-plane host: etcd refuses",
        "                     -> see evio_etcd_endpoints",
        "WARNING  clock       a, b: it is late",
        "                     -> date",
        "no direct way between a, b: their NATs take another port for each destination",
        "in order on all hosts: tun",
    ]
