# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a node is told in words, each with the command that mends it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.kernel.journald import WARNING, with_priority
from ansible_collections.evio.cni.plugins.module_utils.node import services
from ansible_collections.evio.cni.plugins.module_utils.node.certificates import (
    COLLECTION,
    DAEMONSET,
    KUBEADM,
    SITE,
    Certificate,
    read_certificates,
)
from ansible_collections.evio.cni.plugins.module_utils.node.model import Claim, NodeStatus, Overlay, Peer, Versions
from ansible_collections.evio.cni.plugins.module_utils.node.problems import problems_of
from ansible_collections.evio.cni.plugins.module_utils.node.report import NetworkFault, NetworkStatus, PodStatus, Room
from ansible_collections.evio.cni.plugins.module_utils.node.services import Service
from ansible_collections.evio.cni.plugins.module_utils.pki import issue
from ansible_collections.evio.cni.plugins.module_utils.pki_layout import client_layout

DAY = 86400.0
PEER = Peer("node2", "10.10.0.2", "direct", "direct", 3.0, "198.51.100.2:51820")
OVERLAY = Overlay("evio0", "kernel", "10.10.0.1", 1420, False, None, 51820, 1.0, None, (), "", (PEER,))
POD = PodStatus("a" * 64, "eth0", ("10.244.0.2/24",), "plugged in", 1420, "shop", "web-0")
NETWORK = NetworkStatus(
    "evio", "br-evio", ("10.244.0.1/24",), 7, None, 1, (POD,), 1420, "", (Room("10.244.0.0/24", 253, 1),), "installed"
)
CERTIFICATE = Certificate("/etc/kubernetes/pki/a.crt", "a", 0.0, 1e9 + 300 * DAY)
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
    certificates=(CERTIFICATE,),
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
        (
            {"networks": (replace(NETWORK, rules="missing", faults=(NetworkFault("no rules", "evio repair"),)),)},
            "error",
            "network evio: no rules",
            "evio repair",
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
            {"certificates": (replace(CERTIFICATE, expires=1e9 + 12.5 * DAY, renewed_by=KUBEADM),)},
            "warning",
            "expires in 12 days",
            "kubeadm certs renew all",
        ),
        (
            {"certificates": (replace(CERTIFICATE, expires=1e9 - DAY, renewed_by=COLLECTION),)},
            "error",
            "has expired",
            "evio.cni.rotate",
        ),
        (
            {"certificates": (replace(CERTIFICATE, expires=1e9 + DAY, renewed_by=DAEMONSET),)},
            "warning",
            "expires in 1 day",
            "evio.cni.rotate; then the kubectl apply that it names",
        ),
        (
            {"certificates": (replace(CERTIFICATE, expires=1e9 + DAY, renewed_by=KUBEADM, is_ca=True),)},
            "warning",
            "a.crt, the certificate of a CA, expires in 1 day",
            "replace it by hand",
        ),
        (
            {"certificates": (replace(CERTIFICATE, expires=1e9 + DAY, renewed_by=SITE),)},
            "warning",
            "expires in 1 day",
            "replace it by hand",
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
    found = {Path(each.path).name: each for each in read_certificates([str(tmp_path)], patterns=())}
    client = found["apiserver-etcd-client.crt"]
    assert client.subject == "kube-apiserver-etcd-client"
    assert client.valid_from is not None
    assert client.expires is not None
    assert client.valid_from <= time.time() + 1 < client.expires
    assert 360 * DAY < client.expires - time.time() < 370 * DAY
    assert "no certificate" in (found["broken.crt"].error or "")


def test_etcds_drop_in_and_the_inventory_name_certificates_in_other_places(tmp_path: Path) -> None:
    """Each with who renews it."""
    pki, site, drop_in = tmp_path / "srv/pki", tmp_path / "site", tmp_path / "evio.conf"
    issue(str(pki), "node1", [])
    issue(str(pki), "evio-cni", [], client_layout("evio-cni"))
    issue(str(site), "node1", [])
    drop_in.write_text(f"[Service]\nEnvironment=ETCD_CERT_FILE={pki}/etcd/server.crt\nRestart=on-failure\n")
    (site / "apiserver-etcd-client.crt").rename(tmp_path / "client[1].pem")
    more = [str(tmp_path / "client[1].pem"), str(tmp_path / "gone.pem")]
    found = {
        str(Path(each.path).relative_to(tmp_path)): (each.renewed_by, each.is_ca)
        for each in read_certificates(more, patterns=(), etcd_drop_in=str(drop_in))
    }
    assert found == {
        "client[1].pem": (SITE, False),
        "srv/pki/apiserver-etcd-client.crt": (COLLECTION, False),
        "srv/pki/evio-cni-etcd-client.crt": (DAEMONSET, False),
        **{f"srv/pki/etcd/{name}.crt": (COLLECTION, False) for name in ("healthcheck-client", "peer", "server")},
        "srv/pki/etcd/ca.crt": (COLLECTION, True),
    }
    assert read_certificates([], patterns=(), etcd_drop_in=str(tmp_path / "none")) == []


def test_units_are_read_as_systemd_prints_them(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = (
        "Id=evio-overlay.service\nLoadState=loaded\nActiveState=failed\nUnitFileState=enabled\nNRestarts=4\n\n"
        "Id=etcd.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\nNRestarts=0\n"
    )
    monkeypatch.setattr(services, "_run", lambda *_command: shown)
    assert services.read_services() == [Service("evio-overlay.service", "failed", True, 4)]


class Journal:
    """What journalctl prints: our units' entries with a priority and without, the plugin's, and the runtime's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entries: dict[str, list[dict[str, Any]]] = {"units": [], "plugin": [], "words": [], "runtime": []}
        monkeypatch.setattr(services, "_run", self._run)

    def log(self, where: str, message: Any, second: int, priority: int | None = None, **fields: str) -> None:
        known = {} if priority is None else {"PRIORITY": str(priority)}
        entry = {"MESSAGE": message, "__REALTIME_TIMESTAMP": str((1_700_000_000 + second) * 10**6), **known, **fields}
        self.entries[where].append(entry)

    def _run(self, *command: str) -> str:
        assert "--lines=300" in command
        if "CNI_COMMAND=ADD" in command:
            where = "plugin"
        elif "containerd.service" in command:
            where = "runtime"
        else:
            where = "units" if "--priority=4" in command else "words"
        return "".join(json.dumps(entry) + "\n" for entry in self.entries[where]) + "-- no entries --\n"


def test_errors_of_the_journal_are_told_before_warnings_and_the_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(monkeypatch)
    journal.log("units", "a warning of now", 90, 4, _SYSTEMD_UNIT="evio-overlay.service")
    journal.log("units", "an old error", 10, 3, _SYSTEMD_UNIT="evio-repair.service")
    journal.log("units", "evio-repair.service: Failed", 20, 3, _SYSTEMD_UNIT="init.scope", UNIT="evio-repair.service")
    journal.log("words", "ERROR: (evio0) Failed to send", 30, 6, _SYSTEMD_UNIT="evio-overlay.service")
    journal.log("words", [104, 105, 255], 40)
    found = services.read_errors()
    assert [(error.severity, error.message) for error in found] == [
        ("error", "ERROR: (evio0) Failed to send"),
        ("error", "evio-repair.service: Failed"),
        ("error", "an old error"),
        ("warning", "a warning of now"),
        ("warning", "hi\ufffd"),
    ]
    assert found[1].unit == "evio-repair.service"
    assert len(services.read_errors(most=2)) == 2


def test_what_systemd_says_at_each_start_of_the_overlay_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(monkeypatch)
    left = "evio-overlay.service: Found left-over process 496 (wireguard-go) in control group while starting unit."
    for message in (left, "This usually indicates unclean termination of a previous run, or service implementation"):
        journal.log("units", message, 5, 4, _SYSTEMD_UNIT="init.scope", UNIT="evio-overlay.service")
    assert services.read_errors() == []


def test_message_that_is_logged_again_and_again_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(monkeypatch)
    for second in range(100):
        journal.log("units", "cannot reach node3", second, 3, _SYSTEMD_UNIT="evio-overlay.service")
    journal.log("units", "cannot read the key", 5, 3, _SYSTEMD_UNIT="evio-overlay.service")
    found = services.read_errors()
    assert [(error.message, error.count, error.time) for error in found] == [
        ("cannot reach node3", 100, 1_700_000_099.0),
        ("cannot read the key", 1, 1_700_000_005.0),
    ]


def test_failed_call_is_told_in_the_words_of_the_plugin_or_else_of_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(monkeypatch)
    journal.log("plugin", 'ADD of shop/web-0: no address is left in "10.244.3.0/24"', 7, 3)
    quoted = r'level=error msg="plugin type=\"evio\" failed (add): '
    journal.log(
        "runtime", quoted + r'no address is left in \"10.244.3.0/24\""', 7, 6, _SYSTEMD_UNIT="containerd.service"
    )
    journal.log("runtime", quoted + 'signal: killed"', 8, 6, _SYSTEMD_UNIT="containerd.service")
    assert [error.message for error in services.read_errors()] == [
        quoted + 'signal: killed"',
        'ADD of shop/web-0: no address is left in "10.244.3.0/24"',
    ]
    assert re.search(services._PLUGIN_FAILURE, quoted + 'signal: killed"')
    assert re.search(services._PLUGIN_FAILURE, 'plugin type="evio" failed (delete): x')


def test_line_of_a_unit_has_its_priority_in_the_journal_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stderr"
    with path.open("w") as stream:
        assert with_priority("one\ntwo", WARNING, stream) == "one\ntwo"
        status = path.stat()
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        # Each line: what follows a newline must not get a priority of its own choice.
        assert with_priority("one\n<0>two", WARNING, stream) == "<4>one\n<4><0>two"
