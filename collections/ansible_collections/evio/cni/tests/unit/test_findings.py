# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an attachment should be, by its result and by its journal entry, and how findings are reported link by link."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.attachment import Attachment
from ansible_collections.evio.cni.plugins.module_utils.cni.netconf import NetConf
from ansible_collections.evio.cni.plugins.module_utils.cni.spec import NOT_AS_ATTACHED, CniError
from ansible_collections.evio.cni.plugins.module_utils.node.explain import LinkReport, reports_by_link
from ansible_collections.evio.cni.plugins.module_utils.plugin.expected import (
    Expected,
    expected_by_entry,
    expected_by_result,
)
from ansible_collections.evio.cni.plugins.module_utils.plugin.findings import Finding
from ansible_collections.evio.cni.plugins.module_utils.state.attachments import JournalEntry
from ansible_collections.evio.cni.plugins.module_utils.state.journal import Journal

ATTACHMENT = Attachment("evio", "c1", "eth0")
NETNS = "/run/netns/pod"
RESULT: dict[str, Any] = {
    "interfaces": [
        {"name": "br-evio", "mac": "0A:58:0A:F4:03:01"},
        {"name": "evpod1", "mac": "02:00:00:00:00:01", "mtu": 1420},
        {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1420, "sandbox": NETNS},
        {"name": "eth0", "sandbox": "/run/netns/another"},
    ],
    "ips": [{"address": "10.244.3.2/24", "interface": 2}, {"address": "192.0.2.5/24", "interface": 3}],
    "routes": [
        {"dst": "0.0.0.0/0", "gw": "10.244.3.1"},
        {"dst": "198.18.0.0/15"},
        {"dst": "203.0.113.0/24", "table": 100},
    ],
}


def network(**changes: Any) -> NetConf:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.244.3.0/24"}]]}
    conf = {"cniVersion": "1.1.0", "name": "evio", "type": "evio", "gateway": "10.244.3.1/24", "ipam": ipam}
    return NetConf({**conf, "isDefaultGateway": True, **changes})


def by_entry(directory: Path, conf: NetConf, **noted: Any) -> Expected:
    journal = Journal(str(directory))
    journal.begin(ATTACHMENT, {"netns": NETNS, "boot": "b1", **noted})
    return expected_by_entry(conf, JournalEntry(journal, ATTACHMENT))


def routes(expected: Expected) -> list[tuple[str, str | None]]:
    return [(route.destination, route.gateway) for route in expected.routes]


def test_result_of_add_says_what_is_expected() -> None:
    expected = expected_by_result(network(prevResult=RESULT), ATTACHMENT, NETNS, "evpod1")
    assert [(one.name, one.mac, one.mtu, one.sandbox) for one in expected.interfaces] == [
        ("br-evio", "0a:58:0a:f4:03:01", 0, ""),
        ("evpod1", "02:00:00:00:00:01", 1420, ""),
        ("eth0", "02:00:00:00:00:02", 1420, NETNS),
    ]
    assert expected.addresses == ["10.244.3.2/24"]


def test_routes_of_a_result_are_those_of_the_main_table() -> None:
    expected = expected_by_result(network(prevResult=RESULT), ATTACHMENT, NETNS, "evpod1")
    assert routes(expected) == [("0.0.0.0/0", "10.244.3.1"), ("198.18.0.0/15", "")]


@pytest.mark.parametrize(
    ("netns", "host_end", "words"),
    [
        ("/run/netns/none", "evpod1", "has no interfaces eth0 in /run/netns/none"),
        (NETNS, "evpod2", "has no interface evpod2 of the host"),
    ],
)
def test_result_of_another_attachment_is_refused(netns: str, host_end: str, words: str) -> None:
    with pytest.raises(CniError, match=words) as raised:
        expected_by_result(network(prevResult=RESULT), ATTACHMENT, netns, host_end)
    assert raised.value.code == NOT_AS_ATTACHED


def test_addresses_of_a_result_are_those_of_the_interface_in_the_pods_netns() -> None:
    expected = expected_by_result(network(prevResult=RESULT), ATTACHMENT, "/run/netns/another", "evpod1")
    assert expected.addresses == ["192.0.2.5/24"]


def test_journal_entry_says_what_is_expected(tmp_path: Path) -> None:
    expected = by_entry(tmp_path, network(), mac="02:00:00:00:00:02", ips=["10.244.3.2/24"], host="evpod1")
    assert [(one.name, one.mac, one.mtu, one.sandbox) for one in expected.interfaces] == [
        ("br-evio", "", 0, ""),
        ("evpod1", "", 0, ""),
        ("eth0", "02:00:00:00:00:02", 0, NETNS),
    ]
    assert (expected.addresses, expected.is_complete) == (["10.244.3.2/24"], True)


@pytest.mark.parametrize("noted", [{}, {"mac": 5, "ips": ["10.244.3.2/24"]}, {"mac": "02:00:00:00:00:02", "ips": "x"}])
def test_journal_entry_without_mac_or_addresses_is_not_complete(tmp_path: Path, noted: dict[str, Any]) -> None:
    assert not by_entry(tmp_path, network(), **noted).is_complete


def test_routes_of_an_entry_are_those_of_the_configuration(tmp_path: Path) -> None:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.244.3.0/24"}]], "routes": [{"dst": "192.0.2.0/24"}, 5]}
    noted = {"mac": "02:00:00:00:00:02", "ips": ["10.244.3.2/24", "fd00::2/64"]}
    # The bridge has no IPv6 gateway, so nobody has promised the pod an IPv6 default route.
    assert routes(by_entry(tmp_path, network(ipam=ipam), **noted)) == [("0.0.0.0/0", None), ("192.0.2.0/24", None)]
    assert routes(by_entry(tmp_path, network(isDefaultGateway=False), **noted)) == []


def test_all_faults_of_a_link_are_one_report() -> None:
    chain = [
        Finding("pod", "eth0 is down", "recreate the pod"),
        Finding("pod", "eth0 has lost its address", "recreate the pod"),
        Finding("port", "port 1"),
    ]
    assert reports_by_link(chain) == [
        LinkReport("pod", False, "eth0 is down; eth0 has lost its address", "recreate the pod"),
        LinkReport("port", True, "port 1", ""),
    ]
