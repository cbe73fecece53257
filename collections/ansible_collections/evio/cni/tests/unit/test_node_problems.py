# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a node is told in words, each with the command that mends it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.node import services
from ansible_collections.evio.cni.plugins.module_utils.node.certificates import Certificate, read_certificates
from ansible_collections.evio.cni.plugins.module_utils.node.model import Claim, NodeStatus, Overlay, Peer, Versions
from ansible_collections.evio.cni.plugins.module_utils.node.problems import problems_of
from ansible_collections.evio.cni.plugins.module_utils.node.report import NetworkStatus, PodStatus, Room
from ansible_collections.evio.cni.plugins.module_utils.node.services import Service
from ansible_collections.evio.cni.plugins.module_utils.pki import issue

DAY = 86400.0
PEER = Peer("node2", "10.10.0.2", "direct", "direct", 3.0, "198.51.100.2:51820")
OVERLAY = Overlay("evio0", "kernel", "10.10.0.1", 1420, False, None, 51820, 1.0, None, (), "", (PEER,))
POD = PodStatus("a" * 64, "eth0", ("10.244.0.2/24",), "plugged in", 1420, "shop", "web-0")
NETWORK = NetworkStatus(
    "evio", "br-evio", ("10.244.0.1/24",), 7, None, 1, (POD,), 1420, "", (Room("10.244.0.0/24", 253, 1),)
)
GOOD = NodeStatus(
    time=1e9,
    hostname="node1",
    node="node1",
    cluster="kubernetes",
    versions=Versions("evio-1", "3.11.2", "6.1", "3.1.0", ("1.0.0",)),
    services=(Service("ovs-vswitchd.service", "active", True, 0),),
    overlay=OVERLAY,
    overlay_fault=None,
    claim=Claim(("10.244.0.0/24",), 7, None),
    has_rules=True,
    networks=(NETWORK,),
    networks_fault=None,
    runtime_fault=None,
    certificates=(Certificate("/etc/kubernetes/pki/a.crt", "a", 0.0, 1e9 + 300 * DAY),),
    errors=(),
)


def with_pod(state: str) -> dict[str, Any]:
    return {"networks": (replace(NETWORK, pods=(replace(POD, state=state),)),)}


def test_node_in_order_has_no_problem() -> None:
    assert problems_of(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "severity", "what", "remedy"),
    [
        (
            {"overlay": replace(OVERLAY, is_rekeying=True)},
            "note",
            "a rotation of WireGuard keys is not finished, and former keys are accepted too",
            "ansible-playbook -i INVENTORY evio.cni.rotate -e evio_rotate=wireguard",
        ),
        ({"networks_fault": "no conflist"}, "error", "new pods get no network: no conflist", "--limit node1"),
        ({"claim": Claim((), 7, "claimed by node9")}, "error", "fenced", "evio.cni.bootstrap"),
        (
            {"networks": (replace(NETWORK, verdict="is ovs-vswitchd running?"),)},
            "error",
            "is not ready for pods",
            "systemctl restart openvswitch-switch",
        ),
        (
            {"networks": (replace(NETWORK, verdict="a firewall drops; remedy: nft add rule x"),)},
            "error",
            "a firewall drops",
            "nft add rule x",
        ),
        (with_pod("not plugged in"), "error", "1 pod is not plugged into the bridge: shop/web-0", "evio repair"),
        (with_pod("not served"), "error", "cut off", "systemctl restart openvswitch-switch"),
        (with_pod("not reserved"), "warning", "IPAM may give", "evio repair"),
        (with_pod("gone"), "note", "left behind", "evio gc"),
        (
            {"networks": (replace(NETWORK, room=(Room("10.244.0.0/24", 253, 240),)),)},
            "warning",
            "240 of 253 pod addresses",
            "evio gc",
        ),
        ({"networks": (replace(NETWORK, mtu=1400),)}, "warning", "keep the MTU", "evio status"),
        ({"overlay": None, "overlay_fault": "wg failed"}, "error", "wg failed", "journalctl -u evio-overlay"),
        ({"overlay": replace(OVERLAY, age_seconds=30.0)}, "error", "said nothing for 30 s", "restart evio-overlay"),
        ({"overlay": replace(OVERLAY, fault="no key")}, "error", "the overlay is down: no key", "evio overlay status"),
        (
            {"overlay": replace(OVERLAY, blocked=("inet x drops; remedy: nft y",))},
            "error",
            "a firewall of the node cuts pods off: inet x drops",
            "nft y",
        ),
        (
            {"overlay": replace(OVERLAY, peers=(PEER, replace(PEER, name="node3", path=None, kind="none")))},
            "error",
            "there is no way to node3",
            "evio overlay status",
        ),
        (
            {"overlay": replace(OVERLAY, peers=(replace(PEER, path=None, kind="none"),))},
            "error",
            "reaches no other node",
            "wg show",
        ),
        (
            {"services": (Service("evio-repair.service", "failed", True, 3),)},
            "warning",
            "has failed",
            "restart evio-repair",
        ),
        (
            {"services": (Service("evio-overlay.service", "inactive", True, 0),)},
            "error",
            "does not run",
            "evio-overlay",
        ),
        (
            {"certificates": (Certificate("/etc/kubernetes/pki/a.crt", "a", 0.0, 1e9 + 12.5 * DAY),)},
            "warning",
            "expires in 12 days",
            "kubeadm certs renew all",
        ),
        (
            {"certificates": (Certificate("/etc/evio-etcd/a.crt", "a", 0.0, 1e9 - DAY),)},
            "error",
            "has expired",
            "evio.cni.bootstrap",
        ),
        ({"certificates": (Certificate("/x.crt", "", None, None, "no"),)}, "note", "not known to be valid", "/x.crt"),
    ],
)
def test_what_is_wrong_comes_with_its_remedy(changes: dict[str, Any], severity: str, what: str, remedy: str) -> None:
    [problem] = problems_of(replace(GOOD, **changes))
    assert (problem.severity, what in problem.what, remedy in problem.remedy) == (severity, True, True), problem


def test_switch_that_does_not_run_is_told_once() -> None:
    stopped = Service("ovs-vswitchd.service", "inactive", True, 0)
    alone = problems_of(replace(GOOD, services=(stopped,)))
    assert [problem.what for problem in alone] == ["ovs-vswitchd.service does not run"]
    networks = (replace(NETWORK, verdict="is ovs-vswitchd running?"),)
    [problem] = problems_of(replace(GOOD, services=(stopped,), networks=networks))
    assert problem.remedy == "systemctl restart openvswitch-switch"


def test_certificates_are_read_with_their_ages(tmp_path: Path) -> None:
    issue(str(tmp_path), "node1", ["127.0.0.1"])
    (tmp_path / "broken.crt").write_text("nothing")
    found = {Path(each.path).name: each for each in read_certificates((f"{tmp_path}/*.crt", f"{tmp_path}/etcd/*.crt"))}
    client = found["apiserver-etcd-client.crt"]
    assert client.subject == "kube-apiserver-etcd-client"
    assert client.valid_from is not None
    assert client.expires is not None
    assert client.valid_from <= time.time() + 1 < client.expires
    assert 360 * DAY < client.expires - time.time() < 370 * DAY
    assert "no certificate" in (found["broken.crt"].error or "")


def test_units_and_errors_are_read_as_systemd_prints_them(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = (
        "Id=evio-overlay.service\nLoadState=loaded\nActiveState=failed\nUnitFileState=enabled\nNRestarts=4\n\n"
        "Id=etcd.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\nNRestarts=0\n"
    )
    logged = (
        '{"MESSAGE": "cannot read", "__REALTIME_TIMESTAMP": "1700000000000000", "_SYSTEMD_UNIT": "evio.service"}\n'
        '{"MESSAGE": [104, 105, 255], "__REALTIME_TIMESTAMP": "1700000001000000"}\n'
        "-- no entries --\n"
    )
    monkeypatch.setattr(services, "_run", lambda program, *_options: shown if program == "systemctl" else logged)
    assert services.read_services() == [Service("evio-overlay.service", "failed", True, 4)]
    errors = services.read_errors(most=3)
    assert [error.message for error in errors] == ["hi\ufffd", "hi\ufffd", "cannot read"]
