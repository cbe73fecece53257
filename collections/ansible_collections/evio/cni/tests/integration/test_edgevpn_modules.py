# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Removal of what EdgeVPN.io leaves in a real Open vSwitch: its bridges, and its tunnels to removed nodes."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.members import (
    EdgeVpnMembers,
    Member,
    parse_members,
    render_members,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.naming import node_id, tunnel_name

from .ansible_module import check_do_again, run_module
from .ovs_daemons import DATAPATH, OpenVSwitch, in_namespace, network_namespace

pytestmark = pytest.mark.root

BRIDGES = ["appHOSTOVL", "appPODOVL", "eviHOSTOVL", "eviPODOVL"]


@pytest.fixture
def config(ovs: OpenVSwitch, tmp_path: Path) -> dict[str, Any]:
    return {
        "netns": ovs.netns,
        "cluster": "kubernetes",
        "node": "n2",
        "node_ids": {"n1": "", "n2": ""},
        "host_overlay": {"id": "HOSTOVL", "username": "n2-h@x", "password": "hush-1", "address": "10.10.0.2/16"},
        "pod_overlay": {"id": "PODOVL", "username": "n2-p@x", "password": "hush-2"},
        "xmpp_host": "localhost",
        "path": str(tmp_path / "opt/evio/config.json"),
        "members_path": str(tmp_path / "edgevpn.json"),
        "started_path": str(tmp_path / "started.json"),
        "ovsdb": ovs.ovsdb,
    }


def make_bridges(ovs: OpenVSwitch, *names: str) -> None:
    """Create the bridges as EdgeVPN.io does: without the external_ids of our bridges."""
    for name in names:
        ovs.vsctl("--may-exist", "add-br", name, "--", "set", "Bridge", name, f"datapath_type={DATAPATH}")


def removal_of(config: dict[str, Any]) -> dict[str, Any]:
    kept = {name: config[name] for name in ("netns", "path", "members_path", "started_path", "ovsdb")}
    return {**kept, "state": "absent", "state_path": str(Path(config["path"]).with_name("state.json"))}


def test_file_is_for_root_alone_and_keeps_the_gateway_of_pods(config: dict[str, Any]) -> None:
    results = check_do_again("edgevpn_config", **config)
    assert results[1]["pod_bridge"] == "appPODOVL"
    assert "hush" not in json.dumps([result["diff"] for result in results])
    path = Path(config["path"])
    assert path.stat().st_mode & 0o777 == 0o600
    pods = {**config["pod_overlay"], "address": "10.244.3.1/24"}
    check_do_again("edgevpn_config", **{**config, "pod_overlay": pods})
    assert run_module("edgevpn_config", **config)["changed"] is False
    bridge = json.loads(path.read_text())["BridgeController"]["Overlays"]["PODOVL"]["NetDevice"]["AppBridge"]
    assert (bridge["IP4"], bridge["PrefixLen"]) == ("10.244.3.1", 24)


def call_library(netns: str, code: str) -> str:
    """Run code that imports the library in a network namespace; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[5])}
    command = ["nsenter", f"--net=/run/netns/{netns}", sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30).stdout


def removed_before_start(ovs: OpenVSwitch, config: str) -> list[str]:
    """Call remove_bridges_of_other_protocol with the configuration of this path."""
    code = (
        "import json; from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn import start; "
        f"config = json.load(open({config!r})); "
        f"print(json.dumps(start.remove_bridges_of_other_protocol(config, ovsdb={ovs.ovsdb!r})))"
    )
    removed: list[str] = json.loads(call_library(ovs.netns, code))
    return removed


@pytest.mark.parametrize(
    ("protocol", "settings", "left"),
    [
        ("BF", ["set", "Bridge", "eviPODOVL", "stp_enable=true"], "spanning tree"),
        ("STP", ["set-controller", "eviPODOVL", "tcp:127.0.0.1:6633"], "OpenFlow controller"),
        ("learning", ["set-controller", "eviPODOVL", "tcp:127.0.0.1:6633"], "OpenFlow controller"),
    ],
)
def test_bridge_with_settings_of_another_switch_protocol_is_removed_before_the_start(
    ovs: OpenVSwitch, config: dict[str, Any], protocol: str, settings: list[str], left: str
) -> None:
    """EdgeVPN.io only ever sets: with a spanning tree beside BoundedFlood, pods are cut off for good."""
    run_module("edgevpn_config", **config, switch_protocol=protocol)
    make_bridges(ovs, *BRIDGES)
    own = {
        "BF": ["set-controller", "eviHOSTOVL", "tcp:127.0.0.1:6633"],
        "STP": ["set", "Bridge", "eviHOSTOVL", "stp_enable=true"],
    }
    ovs.vsctl(*own.get(protocol, ["show"]))
    # The application bridge is not EdgeVPN.io's to switch.
    ovs.vsctl("set", "Bridge", "appPODOVL", "stp_enable=true")
    assert removed_before_start(ovs, config["path"]) == []
    ovs.vsctl(*settings)
    assert removed_before_start(ovs, config["path"]) == [f"eviPODOVL: {left}"]
    assert sorted(ovs.vsctl("list-br").split()) == ["appHOSTOVL", "appPODOVL", "eviHOSTOVL"]
    assert ovs.vsctl("get", "Bridge", "appPODOVL", "stp_enable") == "true"


def test_bridges_of_an_overlay_that_is_not_configured_any_more_are_removed(
    ovs: OpenVSwitch, config: dict[str, Any]
) -> None:
    run_module("edgevpn_config", **config)
    make_bridges(ovs, *BRIDGES)
    alone = {name: value for name, value in config.items() if name != "pod_overlay"}
    check_do_again("edgevpn_config", **alone)
    assert sorted(ovs.vsctl("list-br").split()) == ["appHOSTOVL", "eviHOSTOVL"]


def test_restart_is_needed_until_the_service_was_started_with_the_file(config: dict[str, Any]) -> None:
    """A run that is killed between the file and the restart must not leave the service with its former settings."""
    started = Path(config["started_path"])
    assert run_module("edgevpn_config", **config)["restart_needed"]
    started.write_text(Path(config["path"]).read_text())
    again = run_module("edgevpn_config", **config)
    assert (again["changed"], again["restart_needed"]) == (False, False)
    with_gateway = {**config, "pod_overlay": {**config["pod_overlay"], "address": "10.244.3.1/24"}}
    claimed = run_module("edgevpn_config", **with_gateway)
    assert (claimed["changed"], claimed["restart_needed"]) == (True, False)
    run_module("edgevpn_config", **with_gateway, mtu=1300)
    killed = run_module("edgevpn_config", **with_gateway, mtu=1300)
    assert (killed["changed"], killed["restart_needed"]) == (False, True)


def test_absent_removes_the_file_and_the_bridges_it_describes(ovs: OpenVSwitch, config: dict[str, Any]) -> None:
    run_module("edgevpn_config", **config)
    make_bridges(ovs, *BRIDGES, "br-site")
    done = check_do_again("edgevpn_config", **removal_of(config))[1]
    assert sorted(done["bridges"]) == BRIDGES
    assert "hush" not in str(done)
    assert ovs.vsctl("list-br") == "br-site"
    assert not Path(config["path"]).exists()
    assert not Path(config["members_path"]).exists()


@pytest.mark.parametrize("place", ["example%2etest", "example%2etest/accounts", "example%2etest/accounts/node1.dat"])
def test_accounts_are_not_written_through_a_link_of_prosodys_user(tmp_path: Path, place: str) -> None:
    """Prosody's directory is its own: a compromised prosody must not become root at the next run."""
    stranger = pwd.getpwnam("nobody")
    data, ours = tmp_path / "data", tmp_path / "ours"
    tmp_path.chmod(0o755)
    ours.mkdir()
    (ours / "node1.dat").write_text("ours\n")
    data.joinpath(place).parent.mkdir(parents=True)
    for directory in (data, *data.rglob("*")):
        os.chown(directory, stranger.pw_uid, stranger.pw_gid)
    link = data / place
    link.symlink_to(ours / "node1.dat" if place.endswith(".dat") else ours)
    os.chown(link, stranger.pw_uid, stranger.pw_gid, follow_symlinks=False)
    accounts = [{"username": "node1@example.test", "password": "secret"}]
    result = run_module(
        "xmpp_accounts",
        domain="example.test",
        overlays=[{"id": "101000", "accounts": accounts}],
        data_dir=str(data),
        groups_file=str(tmp_path / "groups.txt"),
        owner="nobody",
    )
    assert result["failed"]
    assert "is a symbolic link of user" in result["msg"]
    assert (ours.stat().st_uid, (ours / "node1.dat").read_text()) == (0, "ours\n")
    assert [entry.name for entry in ours.iterdir()] == ["node1.dat"]


def test_absent_completes_an_interrupted_removal(ovs: OpenVSwitch, config: dict[str, Any]) -> None:
    run_module("edgevpn_config", **config)
    make_bridges(ovs, "appPODOVL")
    done = run_module("edgevpn_config", **removal_of(config))
    assert (done["changed"], done["bridges"]) == (True, ["appPODOVL"])


TUNNEL = """
import fcntl, os, struct, sys, time
for name in sys.argv[1:]:
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
print("up", flush=True)
time.sleep(600)
"""
"""Stands for the process of a tunnel: it feeds TAP devices."""


@pytest.fixture
def feed(ovs: OpenVSwitch) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def start(*taps: str) -> subprocess.Popen[str]:
        command = ["nsenter", f"--net=/run/netns/{ovs.netns}", sys.executable, "-c", TUNNEL, *taps]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        for tap in taps:
            in_namespace(ovs.netns, "ip", "link", "set", tap, "up")
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def tunnels_to(node: str) -> list[str]:
    return [tunnel_name(overlay[:5], node_id("kubernetes", node)) for overlay in ("HOSTOVL", "PODOVL")]


def test_tunnels_to_a_removed_node_are_taken_down_with_their_processes(
    ovs: OpenVSwitch, feed: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """A TAP that is only unplugged stays up, and this node routes what the removed node sends into it."""
    make_bridges(ovs, "eviHOSTOVL", "eviPODOVL")
    processes = {name: [feed(tap) for tap in tunnels_to(name)] for name in ("n1", "n3")}
    for name in ("n1", "n3"):
        for bridge, tap in zip(("eviHOSTOVL", "eviPODOVL"), tunnels_to(name), strict=True):
            ovs.vsctl("add-port", bridge, tap)
    arguments = {"cluster": "kubernetes", "overlays": ["HOSTOVL", "PODOVL"], "ovsdb": ovs.ovsdb}
    arguments["config"] = str(tmp_path / "none.json")
    members = tmp_path / "members.json"
    peers = {name: Member(node_id("kubernetes", name), "10.10.0.9") for name in ("n1", "n3")}
    members.write_text(render_members(EdgeVpnMembers("n2", "appHOSTOVL", peers)))
    arguments["members"] = str(members)
    done = check_do_again("edgevpn_tunnels", netns=ovs.netns, removed_nodes={"n3": ""}, **arguments)[1]
    assert sorted(done["tunnels"]) == sorted(tunnels_to("n3"))
    left = [ovs.vsctl("list-ports", bridge) for bridge in ("eviHOSTOVL", "eviPODOVL")]
    assert left == tunnels_to("n1")
    links = in_namespace(ovs.netns, "ip", "-brief", "link").stdout
    assert not any(tap in links for tap in tunnels_to("n3"))
    assert [process.wait(timeout=5) != 0 for process in processes["n3"]] == [True, True]
    assert [process.poll() for process in processes["n1"]] == [None, None]
    assert list(parse_members(members.read_text(), "x").peers) == ["n1"]


def test_process_that_feeds_another_tunnel_too_loses_only_the_removed_nodes_tap(
    ovs: OpenVSwitch, feed: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    removed, kept = tunnels_to("n3")[0], tunnels_to("n1")[0]
    process = feed(removed, kept)
    arguments = {"cluster": "kubernetes", "overlays": ["HOSTOVL"], "ovsdb": ovs.ovsdb}
    done = run_module(
        "edgevpn_tunnels",
        netns=ovs.netns,
        removed_nodes={"n3": ""},
        config=str(tmp_path / "none.json"),
        members=str(tmp_path / "none"),
        **arguments,
    )
    assert done["tunnels"] == [removed]
    links = in_namespace(ovs.netns, "ip", "-brief", "link").stdout
    assert (removed in links, kept in links) == (False, True)
    assert process.poll() is None


def test_tunnels_are_found_by_the_prefix_of_the_sites_configuration(
    ovs: OpenVSwitch, feed: Callable[..., subprocess.Popen[str]], config: dict[str, Any]
) -> None:
    overrides = {"LinkManager": {"Overlays": {"PODOVL": {"TapNamePrefix": "site-"}}}}
    run_module("edgevpn_config", **config, overrides=overrides)
    tap = tunnel_name("site-", node_id("kubernetes", "n3"))
    feed(tap)
    arguments = {"cluster": "kubernetes", "overlays": ["PODOVL"], "ovsdb": ovs.ovsdb, "config": config["path"]}
    arguments["members"] = config["members_path"]
    assert run_module("edgevpn_tunnels", netns=ovs.netns, removed_nodes={"n3": ""}, **arguments)["tunnels"] == [tap]


def test_tunnel_counts_while_it_is_plugged_in_up_and_fed(
    ovs: OpenVSwitch, feed: Callable[..., subprocess.Popen[str]]
) -> None:
    make_bridges(ovs, "eviPODOVL", "br-site")
    fed, unplugged, elsewhere, down, unfed = (f"PODOV{number:010}" for number in range(5))
    feeder, other = feed(fed, unplugged, elsewhere, down), feed(unfed)
    for bridge, tap in (("eviPODOVL", fed), ("br-site", elsewhere), ("eviPODOVL", down), ("eviPODOVL", unfed)):
        ovs.vsctl("add-port", bridge, tap)
    in_namespace(ovs.netns, "ip", "link", "set", down, "down")
    other.kill()
    other.wait()
    code = (
        "from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.tunnels import carried_taps; "
        f"print(*carried_taps(['eviPODOVL', 'eviNONE'], ovsdb={ovs.ovsdb!r}))"
    )
    assert call_library(ovs.netns, code).split() == [fed]
    assert feeder.poll() is None


OPENFLOW = """
import socket, sys, threading, time
servers = [socket.create_server(("0.0.0.0", port)) for port in (6633, 6653)]
print("up", flush=True)
time.sleep(600)
"""
"""Stands for the OpenFlow controller of BoundedFlood: it listens on all addresses."""

CLOSE = """
from ansible_collections.evio.cni.plugins.module_utils.firewall.overlay_rules import openflow_rules
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.schema import OPENFLOW_PORTS
print(openflow_rules(OPENFLOW_PORTS).ensure(), openflow_rules(OPENFLOW_PORTS).ensure())
"""


def test_openflow_ports_are_closed_to_all_but_the_node_itself(ovs: OpenVSwitch) -> None:
    with network_namespace("evs") as stranger:
        in_namespace(
            ovs.netns, "ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", stranger
        )
        for netns, device, address in ((ovs.netns, "uplink", "192.0.2.1/24"), (stranger, "eth0", "192.0.2.2/24")):
            in_namespace(netns, "ip", "address", "add", address, "dev", device)
            in_namespace(netns, "ip", "link", "set", device, "up")
        in_namespace(ovs.netns, "ip", "link", "set", "lo", "up")
        enter = ["nsenter", f"--net=/run/netns/{ovs.netns}", sys.executable, "-c"]
        server = subprocess.Popen([*enter, OPENFLOW], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "up\n"
            assert answering_ports(stranger, "192.0.2.1") == [6633, 6653]
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[5])}
            closed = subprocess.run([*enter, CLOSE], env=environment, capture_output=True, text=True, check=True)
            assert closed.stdout == "True False\n"
            assert answering_ports(stranger, "192.0.2.1") == []
            assert answering_ports(ovs.netns, "127.0.0.1") == [6633, 6653]
        finally:
            server.kill()
            server.wait()


def answering_ports(netns: str, address: str) -> list[int]:
    code = (
        "import socket\n"
        "for port in (6633, 6653):\n"
        f"    with socket.socket() as one:\n        one.settimeout(1)\n"
        f"        print(port if one.connect_ex(({address!r}, port)) == 0 else '')"
    )
    return [int(port) for port in in_namespace(netns, sys.executable, "-c", code).stdout.split()]


def test_bridges_of_former_overlay_ids_are_no_conflict_with_the_overlay(
    ovs: OpenVSwitch, config: dict[str, Any]
) -> None:
    run_module("edgevpn_config", **config)
    in_namespace(ovs.netns, "ip", "link", "add", "appHOSTOVL", "type", "veth", "peer", "name", "other")
    in_namespace(ovs.netns, "ip", "link", "set", "appHOSTOVL", "up")
    in_namespace(ovs.netns, "ip", "link", "set", "other", "up")
    in_namespace(ovs.netns, "ip", "address", "add", "10.10.0.2/16", "dev", "appHOSTOVL")
    arguments = {"host_cidr": "10.10.0.0/16", "pod_cidrs": ["10.244.0.0/16"], "own_interfaces": ["appH", "appP"]}
    arguments |= {"edgevpn_config": config["path"], "edgevpn_members": config["members_path"]}
    assert run_module("host_info", netns=ovs.netns, **arguments)["overlay_conflict"] is None
    Path(config["members_path"]).unlink()
    somebody_elses = run_module("host_info", netns=ovs.netns, **arguments)
    assert "appHOSTOVL" in somebody_elses["overlay_conflict"]
