# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules of both overlay backends: each change in check mode, for real, and again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .ansible_module import check_do_again, run_module
from .overlay_lab import Namespace, Node, OverlayLab, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def members(tmp_path: Path) -> list[dict[str, str]]:
    keys = [run_module("wireguard_key", path=str(tmp_path / f"key{index}"))["public_key"] for index in (1, 2, 3)]
    nodes = [{"name": f"n{i}", "address": f"10.10.0.{i}", "public_key": key} for i, key in enumerate(keys, 1)]
    nodes[0]["endpoint"] = "198.51.100.11"
    return nodes


def host_overlay(tmp_path: Path, nodes: list[dict[str, str]], **further: Any) -> dict[str, Any]:
    return {
        "node": "n2",
        "host_cidr": "10.10.0.0/16",
        "members": nodes,
        "config": str(tmp_path / "evio/overlay.json"),
        "pod_routes": str(tmp_path / "evio/pod-routes.json"),
        **further,
    }


def peers_in(path: Path) -> list[str]:
    return [peer["name"] for peer in json.loads(path.read_text())["peers"]]


def test_key_is_created_once_and_only_its_public_key_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "etc/wireguard.key"
    predicted, done, again = check_do_again("wireguard_key", path=str(path))
    assert predicted["public_key"] is None
    assert done["public_key"] == again["public_key"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().strip() not in json.dumps([predicted, done, again])


def test_key_that_others_can_read_gets_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "wireguard.key"
    before = run_module("wireguard_key", path=str(path))["public_key"]
    path.chmod(0o644)
    done = check_do_again("wireguard_key", path=str(path))[1]
    assert done["public_key"] == before


def test_member_makes_the_key_and_measures_in_one_step(tmp_path: Path) -> None:
    path = str(tmp_path / "wireguard.key")
    _check, done, again = check_do_again("wireguard_member", path=path, config=str(tmp_path / "overlay.json"))
    assert done["mtu"] == 1420
    assert again["public_key"] == done["public_key"] == run_module("wireguard_key", path=path)["public_key"]


def test_key_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "wireguard.key"
    run_module("wireguard_key", path=str(path))
    check_do_again("wireguard_key", path=str(path), state="absent")
    assert not path.exists()


def test_file_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wireguard.key").write_text("not a key")
    assert "wg pubkey failed" in run_module("wireguard_key", path=str(tmp_path / "wireguard.key"))["msg"]


def test_host_overlay_is_written_for_root_alone(tmp_path: Path, members: list[dict[str, str]]) -> None:
    check_do_again("wireguard_overlay", **host_overlay(tmp_path, members))
    path = tmp_path / "evio/overlay.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert peers_in(path) == ["n1", "n3"]
    assert json.loads(path.read_text())["peers"][0]["endpoint"] == "198.51.100.11:51820"
    assert [entry.name for entry in path.parent.iterdir()] == ["overlay.json"]


def test_members_as_json_text_give_the_same_file(tmp_path: Path, members: list[dict[str, str]]) -> None:
    listed = host_overlay(tmp_path, members)
    run_module("wireguard_overlay", **listed)
    text = {**{name: value for name, value in listed.items() if name != "members"}, "members_json": json.dumps(members)}
    assert run_module("wireguard_overlay", **text)["changed"] is False
    for wrong, words in (
        ("{", "members_json is not JSON"),
        ('[{"name": "n1"}]', "missing required arguments: address"),
    ):
        assert words in run_module("wireguard_overlay", **{**text, "members_json": wrong})["msg"]
    assert peers_in(tmp_path / "evio/overlay.json") == ["n1", "n3"]


def test_kept_nodes_stay_and_other_missing_nodes_are_removed(tmp_path: Path, members: list[dict[str, str]]) -> None:
    run_module("wireguard_overlay", **host_overlay(tmp_path, members))
    path = tmp_path / "evio/overlay.json"
    assert run_module("wireguard_overlay", **host_overlay(tmp_path, members[:2], keep_nodes=["n3"]))["changed"] is False
    assert peers_in(path) == ["n1", "n3"]
    check_do_again("wireguard_overlay", **host_overlay(tmp_path, members[:2]))
    assert peers_in(path) == ["n1"]


def test_added_member_joins_those_that_are_there(tmp_path: Path, members: list[dict[str, str]]) -> None:
    path = tmp_path / "evio/overlay.json"
    files = {"config": str(path), "pod_routes": str(tmp_path / "evio/pod-routes.json")}
    # A node that has no overlay yet gets none by the run of another node.
    routes = {"pod_cidrs": ["10.244.0.0/16"], "pod_subnets": {"n3": ["10.244.2.0/24"]}, "keep_nodes": ["n1", "n2"]}
    assert not run_module("wireguard_overlay", **files, added_members=members, **routes)["changed"]
    assert not path.exists()
    run_module("wireguard_overlay", **host_overlay(tmp_path, members[:2]))
    check_do_again("wireguard_overlay", **files, added_members=members[1:])
    assert peers_in(path) == ["n1", "n3"]
    members[2]["public_key"] = members[0]["public_key"]
    refused = run_module("wireguard_overlay", **files, added_members=members[2:])
    assert "belongs to both n1 and n3" in refused["msg"]
    assert peers_in(path) == ["n1", "n3"]


@pytest.mark.parametrize("is_added", [False, True])
def test_renamed_member_keeps_its_pods_routes(tmp_path: Path, members: list[dict[str, str]], is_added: bool) -> None:
    """Its subnets have the new name in the step that renames the peer, and not only when the claims are known."""
    wanted = host_overlay(tmp_path, members)
    subnets = {f"n{i}": [f"10.244.{i}.0/24"] for i in (1, 2, 3)}
    run_module("wireguard_overlay", **wanted, pod_cidrs=["10.244.0.0/16"], pod_subnets=subnets)
    members[2]["name"] = "shop"
    if is_added:
        wanted = {**{name: wanted[name] for name in ("config", "pod_routes")}, "added_members": members[2:]}
    check_do_again("wireguard_overlay", **wanted)
    assert peers_in(tmp_path / "evio/overlay.json") == ["n1", "shop"]
    routes = json.loads((tmp_path / "evio/pod-routes.json").read_text())["subnets"]
    assert routes == {"n1": subnets["n1"], "n2": subnets["n2"], "shop": subnets["n3"]}


def test_node_itself_is_renamed_with_its_routes(tmp_path: Path, members: list[dict[str, str]]) -> None:
    wanted = host_overlay(tmp_path, members)
    run_module("wireguard_overlay", **wanted, pod_cidrs=["10.244.0.0/16"], pod_subnets={"n2": ["10.244.2.0/24"]})
    members[1]["name"] = wanted["node"] = "shop"
    check_do_again("wireguard_overlay", **wanted)
    assert json.loads((tmp_path / "evio/overlay.json").read_text())["node"] == "shop"
    assert list(json.loads((tmp_path / "evio/pod-routes.json").read_text())["subnets"]) == ["shop"]


def test_removed_node_is_removed_from_both_files_even_if_it_is_kept(
    tmp_path: Path, members: list[dict[str, str]]
) -> None:
    overlay = host_overlay(tmp_path, members)
    pods = {"pod_cidrs": ["10.244.0.0/16"]}
    routes = {"n1": ["10.244.0.0/24"], "n3": ["10.244.2.0/24"]}
    run_module("wireguard_overlay", **overlay, **pods, pod_subnets=routes)
    files = {"config": overlay["config"], "pod_routes": overlay["pod_routes"], **pods}
    check_do_again(
        "wireguard_overlay", **files, pod_subnets={"n1": routes["n1"]}, keep_nodes=["n3"], removed_nodes=["n3"]
    )
    assert peers_in(tmp_path / "evio/overlay.json") == ["n1"]
    assert json.loads(Path(overlay["pod_routes"]).read_text())["subnets"] == {"n1": routes["n1"]}


def test_state_absent_removes_files_interface_and_agent_state(lab: OverlayLab) -> None:
    node = lab.public_node("node")
    node.namespace.run("iptables", "-P", "FORWARD", "DROP")
    lab.start()
    wait_until(lambda: bool(node.state()), 5, "the agent's state", lab)
    node.stop()
    files = {
        name: str(node.directory / f"{file}.json")
        for name, file in (("config", "overlay"), ("pod_routes", "pod-routes"), ("state_file", "state"))
    }
    predicted, done, again = (
        run_module("wireguard_overlay", namespace=node.namespace, state="absent", **files, check_mode=check)
        for check in (True, False, False)
    )
    assert [one["changed"] for one in (predicted, done, again)] == [True, True, False]
    assert predicted["files"] == done["files"]
    assert not list(node.directory.glob("*.json"))
    assert "evio0" not in node.namespace.run("ip", "link").stdout
    assert node.wireguard_pids() == []
    # The rules of the bridge, which the agent may have added already, go with the bridge (module ovs_bridge).
    rules = node.namespace.run("iptables", "-S", "FORWARD").stdout.splitlines()
    assert [rule for rule in rules if "-i pods" not in rule and "-o pods" not in rule] == ["-P FORWARD DROP"]


def test_check_mode_shows_nodes_without_a_key(tmp_path: Path, members: list[dict[str, str]]) -> None:
    nodes = [{**member, "public_key": None} for member in members]
    predicted = run_module("wireguard_overlay", **host_overlay(tmp_path, nodes), check_mode=True)
    assert predicted["changed"] is True
    assert "(made by this run)" in predicted["diff"][0]["after"]
    assert not (tmp_path / "evio").exists()
    assert "n1 has no public key" in run_module("wireguard_overlay", **host_overlay(tmp_path, nodes))["msg"]


def test_pod_routes_follow_the_claims(tmp_path: Path) -> None:
    files = {"config": str(tmp_path / "overlay.json"), "pod_routes": str(tmp_path / "pod-routes.json")}
    arguments = {**files, "pod_cidrs": ["10.244.0.0/16"]}
    check_do_again("wireguard_overlay", **arguments, pod_subnets={"n1": ["10.244.0.0/24"], "n2": ["10.244.1.0/24"]})
    check_do_again("wireguard_overlay", **arguments, pod_subnets={"n1": ["10.244.0.0/24"]})
    run_module("wireguard_overlay", **arguments, pod_subnets={"n3": ["10.244.0.0/24"]}, keep_nodes=["n1"])
    assert json.loads((tmp_path / "pod-routes.json").read_text())["subnets"] == {"n3": ["10.244.0.0/24"]}


def test_digest_of_the_pod_routes_is_that_of_the_file(tmp_path: Path, members: list[dict[str, str]]) -> None:
    overlay = host_overlay(tmp_path, members)
    assert run_module("wireguard_overlay", **overlay)["pod_routes_digest"] == ""
    pods = {**overlay, "pod_cidrs": ["10.244.0.0/16"], "pod_subnets": {"n1": ["10.244.0.0/24"]}}
    predicted = run_module("wireguard_overlay", **pods, check_mode=True)["pod_routes_digest"]
    written = run_module("wireguard_overlay", **pods)["pod_routes_digest"]
    file = Path(overlay["pod_routes"])
    assert predicted == written == hashlib.sha256(file.read_bytes()).hexdigest()
    # The task that writes members tells it, too, as the file is: also if a person has changed it.
    file.write_text("changed")
    changed = run_module("wireguard_overlay", **overlay)["pod_routes_digest"]
    assert changed == hashlib.sha256(b"changed").hexdigest() != written


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"address": "10.11.0.3"}, "outside the host overlay"),
        ({"address": "10.10.0.2"}, "belongs to both"),
        ({"public_key": "short"}, "32 bytes"),
        ({"endpoint": "relay"}, "evio_public_endpoint"),
        ({"endpoint": "10.10.0.99"}, "inside the host overlay"),
        ({"endpoint": "198.51.100.1:99999"}, "65535"),
    ],
)
def test_invalid_member_is_refused_by_name(
    tmp_path: Path, members: list[dict[str, str]], change: dict[str, str], words: str
) -> None:
    members[2].update(change)
    returned = run_module("wireguard_overlay", **host_overlay(tmp_path, members))
    assert returned["failed"] is True
    assert words in returned["msg"]
    assert not (tmp_path / "evio").exists()


def test_pod_subnets_that_overlap_or_leave_the_pod_overlay_are_refused(tmp_path: Path) -> None:
    arguments = {"pod_routes": str(tmp_path / "pod-routes.json"), "pod_cidrs": ["10.244.0.0/16"]}
    overlap = run_module(
        "wireguard_overlay", **arguments, pod_subnets={"n1": ["10.244.0.0/23"], "n2": ["10.244.1.0/24"]}
    )
    assert "10.244.0.0/23 of n1 overlaps 10.244.1.0/24 of n2" in overlap["msg"]
    outside = run_module("wireguard_overlay", **arguments, pod_subnets={"n1": ["10.245.0.0/24"]})
    assert "outside the pod overlay" in outside["msg"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[OverlayLab]:
    overlay_lab = OverlayLab(tmp_path)
    try:
        yield overlay_lab
    finally:
        overlay_lab.close()


def ready(lab: OverlayLab, node: Node, **further: Any) -> dict[str, Any]:
    arguments = {
        "node": node.name,
        "addresses": {member.name: member.address for member in lab.nodes.values()},
        "mtu": lab.mtu,
        "state_file": str(node.directory / "state.json"),
        **further,
    }
    return run_module("overlay_ready_info", namespace=node.namespace, **arguments)


def test_readiness_is_measured_and_silent_nodes_are_named(lab: OverlayLab) -> None:
    lab.public_node("relay")
    first, second = lab.node("first", lab.router()), lab.node("second", lab.router())
    waiting = ready(lab, first, timeout=1, check_mode=True)
    assert (waiting["changed"], waiting["peers"]) == (False, [])
    assert "not there yet" in json.dumps(waiting["warnings"])
    lab.start()
    lab.wait_path(first, second, "direct")
    lab.wait_path(second, first, "direct")
    lab.wait_reachable()
    measured = ready(lab, first, timeout=10)
    assert measured["changed"] is False
    assert {peer["name"]: (peer["reachable"], peer["path"]) for peer in measured["peers"]} == {
        "relay": (True, "direct"),
        "second": (True, "direct"),
    }
    # The agent would repair the MTU during the measurement.
    first.stop()
    first.namespace.run("ip", "link", "set", "evio0", "mtu", str(lab.mtu - 100))
    narrow = ready(lab, first, timeout=1)
    assert "with packets of 1420 bytes, but with small ones: give a lower evio_mtu" in narrow["msg"]
    first.restart(lab)
    lab.wait_path(first, second, "direct")
    lab.wait_path(second, first, "direct")
    second.stop()
    second.namespace.run("ip", "link", "set", "evio0", "down")
    missing = ready(lab, first, timeout=4)
    assert "first does not reach second (10.10.0.3) at all" in missing["msg"]
    assert "does not reach relay" not in missing["msg"]
    assert ready(lab, first, timeout=30, required_nodes=["relay"])["changed"] is False


def test_slow_wireguard_go_is_warned_about(lab: OverlayLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = lab.public_node("node")
    lab.start()
    wait_until(lambda: bool(node.state()), 5, "the agent's state", lab)
    program = tmp_path / "wireguard-go"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for version, is_slow in (("v0.0.20220316", True), ("v0.0.20230223", False)):
        program.write_text(f"#!/bin/sh\necho wireguard-go {version}\n")
        program.chmod(0o755)
        warnings = json.dumps(ready(lab, node).get("warnings", []))
        assert ("wireguard-go v0.0.20220316 is 5 times slower" in warnings) is is_slow


def edgevpn_arguments(tmp_path: Path, **further: Any) -> dict[str, Any]:
    return {
        "cluster": "kubernetes",
        "node": "n2",
        "node_ids": {"n1": "", "n2": "", "n3": ""},
        "host_overlay": {"id": "HOSTOVL", "username": "n2-h@x", "password": "hush-1", "address": "10.10.0.2/16"},
        "pod_overlay": {"id": "PODOVL", "username": "n2-p@x", "password": "hush-2"},
        "xmpp_host": "localhost",
        "turn": [{"address": "turn.example:3478", "user": "evio", "password": "hush-3"}],
        "path": str(tmp_path / "opt/evio/config.json"),
        "members_path": str(tmp_path / "opt/evio/edgevpn.json"),
        **further,
    }


def test_edgevpn_configuration_that_would_be_misread_is_refused(tmp_path: Path) -> None:
    overrides = {"BridgeController": {"Overlays": {"PODOVL": {"NetDevice": {"SwitchProtocol": "none"}}}}}
    returned = run_module("edgevpn_config", **edgevpn_arguments(tmp_path, overrides=overrides))
    assert "SwitchProtocol: set evio_switch_protocol" in returned["msg"]
    twins = {"n1": "0" * 31 + "1", "n2": "0" * 31 + "2"}
    assert "same 10 characters" in run_module("edgevpn_config", **edgevpn_arguments(tmp_path, node_ids=twins))["msg"]
    # RFC 6761 section 6.4: a name in .invalid never exists.
    nowhere = run_module("edgevpn_config", **edgevpn_arguments(tmp_path, xmpp_host="xmpp.invalid"))
    assert "'xmpp.invalid' does not resolve on this node" in nowhere["msg"]
    assert "EdgeVPN.io waits for it" in nowhere["msg"]
    assert not (tmp_path / "opt").exists()


def test_secrets_in_overrides_are_in_no_output(tmp_path: Path) -> None:
    overrides = {"LinkManager": {"Turn": [{"Address": "turn.example:3478", "User": "x", "Password": "hush-4"}]}}
    returned = run_module("edgevpn_config", **edgevpn_arguments(tmp_path, overrides=overrides), _ansible_diff=True)
    assert returned["changed"] is True
    assert "hush" not in json.dumps(returned)
    assert "hush-4" in (tmp_path / "opt/evio/config.json").read_text()


def test_host_with_a_network_inside_the_overlay_is_refused() -> None:
    arguments = {"host_cidr": "127.0.0.0/16", "pod_cidrs": ["10.244.0.0/16"]}
    refused = run_module("host_info", **arguments, own_interfaces=["evio0"])["overlay_conflict"]
    assert "the interface lo has the address 127.0.0.1/8, inside the host overlay 127.0.0.0/16" in refused
    assert run_module("host_info", **arguments, own_interfaces=["evio0", "lo"])["overlay_conflict"] is None
    # An external overlay's networks are its owner's.
    assert run_module("host_info")["overlay_conflict"] is None


def test_host_with_a_network_inside_that_of_services_is_refused() -> None:
    arguments = {"host_cidr": "10.10.0.0/16", "pod_cidrs": ["10.244.0.0/16"], "own_interfaces": ["evio0"]}
    arguments["service_cidrs"] = ["10.96.0.0/12"]
    namespace = Namespace()
    try:
        namespace.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
        namespace.run("ip", "link", "set", "lan0", "up")
        # As kube-proxy with IPVS gives Services' addresses to the node.
        namespace.run("ip", "address", "add", "10.96.0.10/32", "dev", "lan0")
        assert run_module("host_info", namespace=namespace, **arguments)["overlay_conflict"] is None
        namespace.run("ip", "address", "add", "10.100.0.7/24", "dev", "lan0")
        refused = run_module("host_info", namespace=namespace, **arguments)["overlay_conflict"]
    finally:
        namespace.close()
    assert "10.100.0" in refused
    assert "inside the network of Services (evio_service_network) 10.96.0.0/12" in refused


def test_endpoint_by_name_is_written_and_resolved_on_the_node(tmp_path: Path, members: list[dict[str, str]]) -> None:
    members[0]["endpoint"] = "Relay.example.org"
    run_module("wireguard_overlay", **host_overlay(tmp_path, members))
    config = tmp_path / "evio/overlay.json"
    assert "relay.example.org:51820" in [peer["endpoint"] for peer in json.loads(config.read_text())["peers"]]
    # Without a network, and so without DNS.
    namespace = Namespace()
    try:
        key = str(tmp_path / "wireguard.key")
        relay = {"relays": ["relay.invalid"], "config": str(config), "path": key}
        measured = run_module("wireguard_member", namespace=namespace, **relay)
    finally:
        namespace.close()
    assert measured["mtu"] == 1420
    assert "finds no address of relay.invalid:51820" in str(measured["warnings"])
