# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Path MTUs measured through a real router with a narrow uplink, and the MTU that wireguard_member makes of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import OverlayConfig, render_overlay
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.device import create_key

from .ansible_module import run_module
from .overlay_lab import COLLECTIONS, Namespace

pytestmark = pytest.mark.root

NEAR = {4: ("192.168.1.10/24", "192.168.1.1/24"), 6: ("2001:db8:22::10/64", "2001:db8:22::1/64")}
FAR = {4: ("198.51.100.22/24", "198.51.100.11/24"), 6: ("2001:db8::22/64", "2001:db8::11/64")}
"""Addresses by IP version: of node and router on the LAN, of relay and router on the uplink."""
RELAY = {4: "198.51.100.11:51820", 6: "[2001:db8::11]:51820"}
MEASURE = (
    "import json, sys; from ansible_collections.evio.cni.plugins.module_utils.overlay.path_mtu import path_mtus; "
    "print(json.dumps(path_mtus(sys.argv[1:])))"
)


class Site:
    """A node on a LAN with an MTU of 1500, a router, and a relay behind the router's uplink."""

    def __init__(self, uplink_mtu: int) -> None:
        self.node, self.router, self.relay = Namespace(), Namespace(), Namespace()
        self._join(self.node, self.router, "lan", NEAR, 1500)
        self._join(self.router, self.relay, "wan", FAR, uplink_mtu)
        for version in (4, 6):
            self._route(self.node, NEAR[version][1])
            self._route(self.relay, FAR[version][0])
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            self.router.run("sh", "-c", f"echo 1 >/proc/sys/net/{setting}")

    def close(self) -> None:
        for namespace in (self.node, self.router, self.relay):
            namespace.close()

    def measure(self, *endpoints: str) -> dict[str, int]:
        measured: dict[str, int] = json.loads(
            self.node.run("env", f"PYTHONPATH={COLLECTIONS}", sys.executable, "-c", MEASURE, *endpoints).stdout
        )
        return measured

    @staticmethod
    def _join(one: Namespace, other: Namespace, name: str, addresses: dict[int, tuple[str, str]], mtu: int) -> None:
        ends = ("type", "veth", "peer", "name", name, "mtu", str(mtu), "netns", str(other.pid))
        one.run("ip", "link", "add", name, "mtu", str(mtu), *ends)
        for place, namespace in enumerate((one, other)):
            for setting in ("all", name):
                namespace.run("sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{setting}/accept_dad")
            namespace.run("ip", "link", "set", name, "up")
            for both in addresses.values():
                namespace.run("ip", "address", "add", both[place], "dev", name)

    @staticmethod
    def _route(namespace: Namespace, gateway: str) -> None:
        namespace.run("ip", "route", "add", "default", "via", gateway.split("/")[0])


@pytest.fixture
def narrow() -> Iterator[Site]:
    site = Site(1280)
    try:
        yield site
    finally:
        site.close()


@pytest.mark.parametrize("version", [4, 6])
def test_mtu_of_a_narrow_uplink_is_found(narrow: Site, version: int) -> None:
    assert narrow.measure(RELAY[version]) == {RELAY[version]: 1280}
    # The second time the kernel remembers it.
    assert narrow.measure(RELAY[version]) == {RELAY[version]: 1280}


def test_path_without_narrow_link_has_the_mtu_of_the_nodes_link() -> None:
    site = Site(1500)
    try:
        assert site.measure(*RELAY.values()) == dict.fromkeys(RELAY.values(), 1500)
    finally:
        site.close()


def test_relay_without_a_route_is_left_out(narrow: Site) -> None:
    narrow.node.run("ip", "-6", "route", "del", "default")
    assert narrow.measure(*RELAY.values()) == {RELAY[4]: 1280}


def test_overlay_behind_a_narrow_uplink_gets_a_smaller_mtu(narrow: Site, tmp_path: Path) -> None:
    done = overlay_mtu(narrow.node, tmp_path, relays=["198.51.100.11"])
    assert (done["changed"], done["mtu"], done["underlay"]) == (False, 1200, {RELAY[4]: 1280})
    assert "warnings" not in done


def test_first_relay_uses_the_mtu_of_its_default_route(narrow: Site, tmp_path: Path) -> None:
    assert overlay_mtu(narrow.relay, tmp_path, endpoint="2001:db8::11")["mtu"] == 1200


def test_overlay_on_ethernet_gets_an_mtu_of_1420(tmp_path: Path) -> None:
    site = Site(1500)
    try:
        assert overlay_mtu(site.node, tmp_path, relays=list(RELAY.values()))["mtu"] == 1420
    finally:
        site.close()


def test_mtu_of_an_existing_overlay_shrinks_with_a_warning_and_never_grows(narrow: Site, tmp_path: Path) -> None:
    write_overlay(tmp_path, 1420)
    less = overlay_mtu(narrow.node, tmp_path, relays=[RELAY[4]])
    assert less["mtu"] == 1200
    assert "goes from 1420 to 1200: the path to 198.51.100.11:51820 carries 1280 bytes" in json.dumps(less["warnings"])
    write_overlay(tmp_path, 1100)
    same = overlay_mtu(narrow.node, tmp_path, relays=[RELAY[4]])
    assert (same["mtu"], "warnings" in same) == (1100, False)


def test_mtu_of_the_user_is_used_with_a_warning_if_it_does_not_fit(narrow: Site, tmp_path: Path) -> None:
    fitting = overlay_mtu(narrow.node, tmp_path, relays=[RELAY[4]], mtu=1100)
    assert (fitting["mtu"], "warnings" in fitting) == (1100, False)
    too_much = overlay_mtu(narrow.node, tmp_path, relays=[RELAY[4]], mtu=1420)
    assert too_much["mtu"] == 1420
    assert "evio_mtu: 1420 is more than fits in one piece" in json.dumps(too_much["warnings"])


def test_ipv6_inside_a_narrow_overlay_is_refused(narrow: Site, tmp_path: Path) -> None:
    networks = ["10.10.0.0/16", "10.244.0.0/16", "fd00:10:244::/48"]
    refused = overlay_mtu(narrow.node, tmp_path, relays=[RELAY[4]], networks=networks)
    assert "IPv6 inside the overlay needs an MTU of 1280, it would have 1200" in refused["msg"]
    assert overlay_mtu(narrow.node, tmp_path, relays=[RELAY[4]], networks=networks[:2])["mtu"] == 1200


def overlay_mtu(namespace: Namespace, directory: Path, **arguments: Any) -> dict[str, Any]:
    files = {"config": str(directory / "overlay.json"), "path": str(directory / "wireguard.key")}
    create_key(files["path"])
    return run_module("wireguard_member", namespace=namespace, **files, **arguments)


def write_overlay(directory: Path, mtu: int) -> None:
    """Write the file of an existing overlay, as wireguard_overlay does."""
    key = create_key(str(directory / "wireguard.key"))
    config = OverlayConfig("node2", "10.10.0.2", "10.10.0.0/16", key, mtu=mtu)
    (directory / "overlay.json").write_text(render_overlay(config))
