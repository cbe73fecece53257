# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A range that only the dead fill has room: their addresses are given back, those of the living never."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .cni_runtime import CNI_PLUGINS, NewPod, Node, PluginFailedError, library, own_ipam
from .ovs_daemons import in_namespace

pytestmark = pytest.mark.root


_MAKE_ROOM = """
import sys
sys.path.insert(0, sys.argv[1])
from evio_cni.cni.spec import CniError
from evio_cni.plugin.reclaim import reclaim_addresses
from evio_cni.cni.netconf import NetConf, decode
print(reclaim_addresses(NetConf(decode(sys.stdin.buffer.read())), CniError(100, sys.argv[3]), sys.argv[2]))
"""


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    return {"cniVersion": "1.1.0"}


@pytest.fixture
def node(node: Node) -> Node:
    """The node, with three addresses for pods."""
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.2", "rangeEnd": "10.244.3.4"}]]
    return node


_REFUSAL = (
    "host-local ADD: failed to allocate for range 0: no IP addresses available in range set: 10.244.3.2-10.244.3.4"
)


def reclaim_addresses(node: Node, path: str = CNI_PLUGINS, refusal: str = _REFUSAL) -> bool:
    """What an ADD that is refused an address would do, on the node."""
    enter = ["nsenter", f"--net=/run/netns/{node.switch.netns}"]
    done = subprocess.run(
        [*enter, "/usr/bin/python3", "-ISE", "-c", _MAKE_ROOM, library(), path, refusal],
        input=json.dumps(node.conf),
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {"True": True, "False": False}[done.stdout.strip()]


def reserve(node: Node, address: str, container_id: str) -> None:
    (node.directory / "ipam/evio" / address).write_text(f"{container_id}\r\neth0")


def test_addresses_of_pods_without_a_namespace_are_reclaimed(node: Node, new_pod: NewPod) -> None:
    living = node.add(new_pod())
    before = node.leftovers()
    node.add_and_lose()
    node.add_and_lose()
    assert len(node.reservations()) == 3
    assert reclaim_addresses(node)
    assert node.leftovers() == before
    assert living.pings("10.244.3.1")
    node.add(new_pod())


def test_add_reclaims_addresses_of_dead_attachments(node: Node, new_pod: NewPod) -> None:
    living = node.add(new_pod())
    node.add_and_lose()
    node.add_and_lose()
    pod = node.add(new_pod())
    assert node.reservations() == sorted([living.address, pod.address])
    assert pod.pings(living.address)


def test_concurrent_adds_reclaim_enough_addresses_for_all(node: Node, new_pod: NewPod) -> None:
    for _place in range(3):
        node.add_and_lose()
    pods = [new_pod() for _place in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(node.add, pods))
    assert node.reservations() == sorted(pod.address for pod in pods)
    assert len(set(node.reservations())) == 3


def test_nothing_is_reclaimed_while_addresses_are_free(node: Node) -> None:
    node.add_and_lose()
    before = node.leftovers()
    assert reclaim_addresses(node)
    assert node.leftovers() == before


def test_other_ipam_refusals_reclaim_nothing(node: Node) -> None:
    for _place in range(3):
        node.add_and_lose()
    before = node.leftovers()
    assert not reclaim_addresses(node, refusal="host-local ADD: requested IP address 10.244.3.2 is not available")
    assert node.leftovers() == before


def test_host_local_refusal_has_the_expected_words(node: Node, new_pod: NewPod) -> None:
    for _place in range(3):
        node.add(new_pod())
    with pytest.raises(PluginFailedError) as raised:
        node.add(new_pod())
    assert raised.value.answer["msg"] == _REFUSAL


def test_range_full_of_running_pods_stays_full(node: Node, new_pod: NewPod) -> None:
    pods = [node.add(new_pod()) for _place in range(3)]
    before = node.leftovers()
    assert not reclaim_addresses(node)
    assert node.leftovers() == before
    assert pods[0].pings(pods[2].address)


def test_reservations_without_an_attachment_are_reclaimed(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    reserve(node, "10.244.3.3", "lost-one")
    reserve(node, "10.244.3.4", "lost-two")
    assert reclaim_addresses(node)
    assert node.reservations() == ["10.244.3.2"]


def test_pod_of_this_boot_whose_namespace_is_there_keeps_its_address(node: Node, new_pod: NewPod) -> None:
    """Its veth was taken from it; its runtime still has it, and will DEL it."""
    pod = node.add(new_pod())
    in_namespace(node.switch.netns, "ip", "link", "del", pod.result["interfaces"][1]["name"])
    reserve(node, "10.244.3.3", "lost-one")
    reserve(node, "10.244.3.4", "lost-two")
    assert reclaim_addresses(node)
    assert node.reservations() == [pod.address]


def test_running_pods_without_a_journal_entry_keep_their_addresses(node: Node, new_pod: NewPod) -> None:
    pods = [node.add(new_pod()) for _place in range(3)]
    for name in node.journal():
        (node.directory / "state/evio" / name).unlink()
    assert not reclaim_addresses(node)
    assert len(node.reservations()) == 3
    assert pods[0].pings(pods[2].address)


def test_addresses_of_pods_from_before_a_reboot_are_reclaimed(node: Node, new_pod: NewPod) -> None:
    lost = [node.add_and_lose() for _place in range(3)]
    for pod in lost:
        # The namespace's path may be another pod's by now.
        node.note(pod, boot="another", netns=new_pod().path)
    assert reclaim_addresses(node)
    assert node.leftovers() == {}


def test_attachment_locked_by_another_call_is_not_reclaimed(node: Node, new_pod: NewPod) -> None:
    """An ADD has its address from IPAM before its journal says a word of it."""
    node.add(new_pod())
    reserve(node, "10.244.3.3", "at-work")
    reserve(node, "10.244.3.4", "lost")
    lock = _HOLD_LOCK.format(library=library(), state_dir=node.conf["stateDir"], network=node.conf["name"])
    with subprocess.Popen(
        ["/usr/bin/python3", "-ISE", "-c", lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as at:
        assert at.stdout is not None
        assert at.stdout.readline() == b"held\n"
        assert reclaim_addresses(node)
        assert node.reservations() == ["10.244.3.2", "10.244.3.3"]
        at.communicate(timeout=10)


_HOLD_LOCK = """
import sys
sys.path.insert(0, {library!r})
from evio_cni.state.lock import AttachmentLock
from evio_cni.cni.attachment import Attachment
with AttachmentLock({state_dir!r}, Attachment({network!r}, "at-work", "eth0")):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_reservation_that_names_no_container_is_no_path(node: Node, tmp_path: Path) -> None:
    node.add_and_lose()
    victim = tmp_path / "state/victim:eth0"
    victim.write_text("precious")
    reserve(node, "10.244.3.3", "../victim")
    reserve(node, "10.244.3.4", "../victim")
    assert reclaim_addresses(node)
    assert node.reservations() == ["10.244.3.3", "10.244.3.4"]
    assert node.call("GC", **{"cni.dev/valid-attachments": []}) == {}
    assert victim.read_text() == "precious"
    assert node.reservations() == ["10.244.3.3", "10.244.3.4"]


def test_addresses_of_other_ipam_plugins_are_not_reclaimed(node: Node) -> None:
    with own_ipam(node, "", status=0) as calls:
        assert not reclaim_addresses(node, str(calls.parent))
        assert not calls.exists()


@pytest.mark.parametrize("ranges", ["10.244.3.0/24", [["10.244.3.0/24"]], [[{"rangeStart": "10.244.3.2"}]], [[{}]]])
def test_status_names_invalid_ranges(node: Node, ranges: object) -> None:
    node.conf["ipam"]["ranges"] = ranges
    assert not reclaim_addresses(node)
    with pytest.raises(PluginFailedError, match=r"ipam\.ranges: .* are no ranges of host-local") as raised:
        node.call("STATUS")
    assert raised.value.code == 7


def test_ranges_of_the_runtime_and_of_old_configurations_count(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    one = {"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.2", "rangeEnd": "10.244.3.2"}
    node.conf["ipam"].pop("ranges")
    for places in ({"ipam": node.conf["ipam"] | one}, {"runtimeConfig": {"ipRanges": [[one]]}}):
        with pytest.raises(PluginFailedError, match=r"no address of 10\.244\.3\.0/24 is left") as raised:
            node.call("STATUS", **places)
        assert raised.value.code == 50


def test_after_a_reboot_no_address_is_given_twice(node: Node, new_pod: NewPod) -> None:
    """host-local's files and the journal outlive it, namespaces, switch and what is in /run do not."""
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.2", "rangeEnd": "10.244.3.9"}]]
    lost = [node.add_and_lose() for _place in range(4)]
    for pod in lost:
        node.note(pod, boot="another")
    node.switch.stop()
    node.switch.empty_database()
    in_namespace(node.switch.netns, "nft", "flush", "ruleset")
    node.switch.start()
    living = [node.add(new_pod()) for _place in range(3)]
    # The runtime finds out about its old sandboxes one by one, while new ones come.
    for pod in lost:
        node.call("DEL", pod, CNI_NETNS="")
        living.append(node.add(new_pod()))
    assert len({pod.address for pod in living}) == len(living)
    assert node.reservations() == sorted(pod.address for pod in living)
    assert all(living[0].pings(pod.address) for pod in living[1:])


# Reservations that are lost under running pods, as by kubeadm reset


def test_address_of_a_live_pod_is_not_given_again_when_reservations_are_lost(node: Node, new_pod: NewPod) -> None:
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24"}]]
    pods = [node.add(new_pod()) for _place in range(3)]
    shutil.rmtree(node.directory / "ipam")
    more = [node.add(new_pod()) for _place in range(3)]
    addresses = [pod.address for pod in (*pods, *more)]
    assert len(set(addresses)) == 6
    assert set(node.reservations()) == set(addresses)
    for pod in (*pods, *more):
        assert pod.pings("10.244.3.1")
        node.call("CHECK", pod, prevResult=pod.result)
    for pod in (*pods, *more):
        node.delete(pod)
    assert node.leftovers() == {}


def test_adds_at_once_after_the_loss_get_addresses_of_their_own(node: Node, new_pod: NewPod) -> None:
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24"}]]
    pods = [node.add(new_pod()) for _place in range(3)]
    shutil.rmtree(node.directory / "ipam")
    more = [new_pod() for _place in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(node.add, more))
    addresses = [pod.address for pod in (*pods, *more)]
    assert len(set(addresses)) == 9
    assert set(node.reservations()) == set(addresses)
