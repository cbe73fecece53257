# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Removal of what EdgeVPN.io leaves in a real Open vSwitch: its bridges, and its tunnels to removed nodes."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.naming import node_id, tunnel_name

from .ansible_module import check_do_again, run_module
from .ovs_daemons import OpenVSwitch, in_namespace

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
        "ovsdb": ovs.ovsdb,
    }


def make_bridges(ovs: OpenVSwitch, *names: str) -> None:
    """Create the bridges as EdgeVPN.io does: without the external_ids of our bridges."""
    for name in names:
        ovs.vsctl("--may-exist", "add-br", name, "--", "set", "Bridge", name, "datapath_type=netdev")


def test_absent_removes_the_file_and_the_bridges_it_describes(ovs: OpenVSwitch, config: dict[str, Any]) -> None:
    run_module("edgevpn_config", **config)
    make_bridges(ovs, *BRIDGES, "br-site")
    done = check_do_again("edgevpn_config", netns=ovs.netns, state="absent", path=config["path"], ovsdb=ovs.ovsdb)[1]
    assert sorted(done["bridges"]) == BRIDGES
    assert "hush" not in str(done)
    assert ovs.vsctl("list-br") == "br-site"
    assert not Path(config["path"]).exists()


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
    done = run_module("edgevpn_config", netns=ovs.netns, state="absent", path=config["path"], ovsdb=ovs.ovsdb)
    assert (done["changed"], done["bridges"]) == (True, ["appPODOVL"])


def test_only_tunnels_to_a_removed_node_are_unplugged(ovs: OpenVSwitch) -> None:
    make_bridges(ovs, "eviHOSTOVL", "eviPODOVL")
    tunnels = {
        name: [tunnel_name(overlay, node_id("kubernetes", name)) for overlay in ("HOSTOVL", "PODOVL")]
        for name in ("n1", "n3")
    }
    for name, (host_tunnel, pod_tunnel) in tunnels.items():
        for bridge, tunnel in (("eviHOSTOVL", host_tunnel), ("eviPODOVL", pod_tunnel)):
            in_namespace(ovs.netns, "ip", "link", "add", tunnel, "type", "veth", "peer", "name", f"{name}{bridge[-8:]}")
            ovs.vsctl("add-port", bridge, tunnel)
    arguments = {"cluster": "kubernetes", "overlays": ["HOSTOVL", "PODOVL"], "ovsdb": ovs.ovsdb}
    done = check_do_again("edgevpn_tunnels", netns=ovs.netns, removed_nodes={"n3": ""}, **arguments)[1]
    assert sorted(done["tunnels"]) == sorted(tunnels["n3"])
    left = {bridge: ovs.vsctl("list-ports", bridge) for bridge in ("eviHOSTOVL", "eviPODOVL")}
    assert list(left.values()) == tunnels["n1"]
