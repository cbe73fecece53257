# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rotation of WireGuard keys on real devices, step by step as rotate.yml does it, under packets that never pause."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.device import USERSPACE

from .ansible_module import run_module
from .overlay_lab import DEVICE_KIND, HOST_CIDR, SYMMETRIC, Node, OverlayLab, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        DEVICE_KIND == USERSPACE and shutil.which("wireguard-go") is None,
        reason="wireguard-go is not installed: setup/machine",
    ),
]

DIRECT = "direct"
INTERVAL = 0.02
"""Seconds between two packets of a Stream."""

MOST_LOST = 40
"""Packets of a Stream that one change of a key may cost on a busy machine: 0.8 s. A lost path costs 3.5 s."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[OverlayLab]:
    overlay_lab = OverlayLab(tmp_path)
    try:
        yield overlay_lab
    finally:
        overlay_lab.close()


def three_nodes(lab: OverlayLab) -> tuple[Node, Node, Node]:
    nodes = (lab.public_node("relay"), lab.node("home0", lab.router()), lab.node("home1", lab.router()))
    lab.start()
    lab.wait_path(nodes[1], nodes[2], DIRECT)
    return nodes


class Stream:
    """Echo requests of one node to an address, one each INTERVAL."""

    def __init__(self, source: Node, address: str) -> None:
        command = source.namespace.command("ping", "-n", "-q", "-i", str(INTERVAL), "-W", "1", address)
        self.name = f"{source.name} to {address}"
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def lost(self) -> int:
        """End it, and return how many requests had no answer."""
        time.sleep(0.5)
        self._process.send_signal(signal.SIGINT)
        told = self._process.communicate(timeout=10)[0]
        found = re.search(r"(\d+) packets transmitted, (\d+) received", told)
        assert found, told
        return int(found[1]) - int(found[2])


def files(node: Node) -> dict[str, str]:
    return {"path": str(node.directory / "wireguard.key"), "config": str(node.directory / "overlay.json")}


def tell_members(lab: OverlayLab, *, next_key: bool, unreached: tuple[Node, ...] = ()) -> None:
    """Do what the role does on all nodes that are reached: collect the keys, and write the members."""
    reached = [node for node in lab.nodes.values() if node not in unreached]
    members: list[dict[str, Any]] = []
    for node in reached:
        told = run_module("wireguard_member", namespace=node.namespace, mtu=lab.mtu, next_key=next_key, **files(node))
        keys = {name: told[name] for name in ("public_key", "next_public_key") if name in told}
        members.append({"name": node.name, "address": node.address, "endpoint": node.endpoint, **keys})
    for node in reached:
        done = run_module(
            "wireguard_overlay",
            namespace=node.namespace,
            node=node.name,
            host_cidr=HOST_CIDR,
            mtu=lab.mtu,
            members=members,
            keep_nodes=[node.name for node in unreached],
            config=files(node)["config"],
            pod_routes=str(node.directory / "pod-routes.json"),
        )
        assert "files" in done, done
    for node in reached:
        assert rekey(node, "accepted")["changed"] is False


def rekey(node: Node, state: str, **arguments: Any) -> dict[str, Any]:
    state_file = str(node.directory / "state.json")
    return run_module(
        "wireguard_rekey", namespace=node.namespace, state=state, state_file=state_file, **files(node), **arguments
    )


def keys_of(node: Node) -> set[str]:
    return set(node.namespace.run("wg", "show", "evio0", "peers").stdout.split())


def own_key(node: Node) -> str:
    return node.namespace.run("wg", "show", "evio0", "public-key").stdout.strip()


def wait_for_answers(source: Node, address: str, seconds: float) -> None:
    wait_until(lambda: source.pings(address), seconds, f"{source.name} pings {address}")


def test_all_nodes_change_their_keys_and_no_path_is_lost(
    lab: OverlayLab, record_property: pytest.RecordProperty
) -> None:
    relay, first, second = three_nodes(lab)
    strangers = [lab.node(f"symmetric{i}", lab.router(SYMMETRIC)) for i in range(2)]
    for node in lab.nodes.values():
        lab.write(node)
    for node in strangers:
        node.start()
        lab.wait_path(node, relay, DIRECT)
    before = {node.name: own_key(node) for node in lab.nodes.values()}
    pairs = [(relay, first), (first, relay), (first, second), (second, first), (strangers[0], strangers[1])]
    streams = [Stream(source, target.pod_gateway) for source, target in pairs]
    time.sleep(2)
    tell_members(lab, next_key=True)
    for node in lab.nodes.values():
        predicted = rekey(node, "changed")
        assert predicted["changed"] is True, predicted
        assert rekey(node, "changed")["changed"] is False
        assert own_key(node) == predicted["public_key"] != before[node.name]
    tell_members(lab, next_key=False)
    lost = {stream.name: stream.lost() for stream in streams}
    record_property("lost", json.dumps(lost))
    print(f"lost of one packet each {INTERVAL * 1000:.0f} ms, over {len(lab.nodes)} changes: {lost}")
    # A change concerns a stream if it is that of one of its ends, or of the relay.
    assert max(lost.values()) <= 3 * MOST_LOST, lost
    assert first.paths()[second.name] == DIRECT
    assert strangers[0].paths()[strangers[1].name] == relay.name
    after = {node.name: own_key(node) for node in lab.nodes.values()}
    for node in lab.nodes.values():
        assert keys_of(node) <= set(after.values()), lab.logs()
        assert not list(node.directory.glob("*.next"))
    lab.wait_reachable()


def test_former_key_is_refused_after_the_rotation(lab: OverlayLab) -> None:
    relay, first, second = three_nodes(lab)
    stolen = (first.directory / "wireguard.key").read_text()
    tell_members(lab, next_key=True)
    for node in (relay, first, second):
        rekey(node, "changed")
    tell_members(lab, next_key=False)
    thief = lab.public_node("thief").namespace
    thief.run("wireguard-go" if DEVICE_KIND == USERSPACE else "true", "wg9")
    if DEVICE_KIND != USERSPACE:
        thief.run("ip", "link", "add", "wg9", "type", "wireguard")
    settings = ["peer", own_key(relay), "endpoint", str(relay.endpoint), "allowed-ips", HOST_CIDR]
    thief.run("wg", "set", "wg9", "private-key", "/dev/stdin", *settings, text=stolen)
    thief.run("ip", "address", "add", f"{first.address}/32", "dev", "wg9")
    thief.run("ip", "link", "set", "wg9", "up")
    thief.run("ip", "route", "add", HOST_CIDR, "dev", "wg9")
    assert thief.run("ping", "-n", "-c", "5", "-W", "1", relay.address, check=False).returncode != 0
    assert thief.run("wg", "show", "wg9", "latest-handshakes").stdout.split()[1] == "0"
    # The same device with the key that the node has now is let in: it was the key that was refused.
    thief.run("wg", "set", "wg9", "private-key", "/dev/stdin", text=(first.directory / "wireguard.key").read_text())
    first.stop(signal.SIGKILL)
    first.lose_device()
    wait_until(
        lambda: thief.run("wg", "show", "wg9", "latest-handshakes").stdout.split()[1] != "0", 15, "a handshake", lab
    )


def test_run_that_is_cut_off_at_any_step_is_finished_by_the_next(lab: OverlayLab) -> None:
    relay, first, second = three_nodes(lab)
    before = {node.name: own_key(node) for node in lab.nodes.values()}
    tell_members(lab, next_key=True)
    announced = json.loads((first.directory / "overlay.json").read_text())
    rekey(relay, "changed")
    rekey(first, "changed")
    # The next run: nobody gets another key, and nobody is told anything new.
    tell_members(lab, next_key=True)
    assert json.loads((first.directory / "overlay.json").read_text()) == announced
    changed = own_key(first)
    assert [rekey(node, "changed")["changed"] for node in (relay, first, second)] == [False, False, True]
    tell_members(lab, next_key=False)
    assert own_key(first) == changed
    assert all(own_key(node) != before[node.name] for node in lab.nodes.values())
    lab.wait_reachable()


def test_agents_that_were_killed_around_a_change_find_the_key_again(lab: OverlayLab) -> None:
    relay, first, second = three_nodes(lab)
    tell_members(lab, next_key=True)
    # The relay changes while nobody's agent hears its notice, and while its own agent does not run.
    for node in (relay, first, second):
        node.stop(signal.SIGKILL)
    (relay.directory / "wireguard.key.next").rename(relay.directory / "wireguard.key")
    for node in (relay, first, second):
        node.restart(lab)
    for node in (first, second):
        wait_for_answers(node, relay.address, 15)
    # A node that boots has no session with any key.
    rekey(first, "changed")
    second.stop(signal.SIGKILL)
    second.lose_device()
    second.restart(lab)
    lab.wait_reachable()
    rekey(second, "changed")
    tell_members(lab, next_key=False)
    lab.wait_reachable()


def test_node_that_was_not_told_is_not_cut_off_while_it_is_up(lab: OverlayLab) -> None:
    relay, first, second = three_nodes(lab)
    tell_members(lab, next_key=True, unreached=(second,))
    refused = rekey(relay, "changed", nodes_without_keys=[second.name])
    assert f"{second.name} was not told of the next keys, and is up" in refused["msg"]
    assert own_key(relay) == relay.public_key
    second.stop(signal.SIGKILL)
    second.lose_device()
    wait_until(lambda: relay.paths()[second.name] != DIRECT, 60, "the relay notices", lab)
    for node in (relay, first):
        assert rekey(node, "changed", nodes_without_keys=[second.name])["changed"] is True
    tell_members(lab, next_key=False, unreached=(second,))
    # It comes back with the keys of before, and the next run of the playbook brings it in again.
    second.restart(lab)
    time.sleep(3)
    assert not second.pings(relay.address)
    tell_members(lab, next_key=False)
    lab.wait_reachable()
    assert own_key(second) == second.public_key


def test_check_mode_predicts_a_change_and_makes_none(lab: OverlayLab) -> None:
    relay = three_nodes(lab)[0]
    names = sorted(path.name for path in relay.directory.iterdir())
    told = run_module(
        "wireguard_member", namespace=relay.namespace, check_mode=True, next_key=True, mtu=lab.mtu, **files(relay)
    )
    assert (told["changed"], told["next_public_key"]) == (True, "(made by this run)")
    state_file = str(relay.directory / "state.json")
    predicted = run_module("wireguard_rekey", check_mode=True, state="changed", state_file=state_file, **files(relay))
    assert predicted["changed"] is True
    assert predicted["diff"]["after"] == {"public key": "(made by this run)"}
    assert sorted(path.name for path in relay.directory.iterdir()) == names


def test_node_that_was_never_set_up_gets_no_next_key(tmp_path: Path) -> None:
    refused = run_module(
        "wireguard_member", next_key=True, path=str(tmp_path / "key"), config=str(tmp_path / "overlay.json")
    )
    assert "run bootstrap.yml for it first" in refused["msg"]
    assert not list(tmp_path.iterdir())


def test_agent_that_knows_nothing_of_next_keys_is_named(lab: OverlayLab) -> None:
    relay = three_nodes(lab)[0]
    tell_members(lab, next_key=True)
    relay.stop(signal.SIGKILL)
    state = relay.state()
    del state["keys"]
    (relay.directory / "state.json").write_text(json.dumps({**state, "updated": time.time() + 10}))
    refused = rekey(relay, "changed", timeout=1)
    assert "run bootstrap.yml first" in refused["msg"]
    assert own_key(relay) == relay.public_key
