# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the underlay carries, measured through a real router with a narrow uplink; and what the module makes of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import OverlayConfig, render_overlay
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.device import create_key

from .overlay_lab import COLLECTIONS, Namespace
from .test_overlay_modules import run_module

pytestmark = pytest.mark.root

NEAR = {4: ("192.168.1.10/24", "192.168.1.1/24"), 6: ("2001:db8:22::10/64", "2001:db8:22::1/64")}
FAR = {4: ("198.51.100.22/24", "198.51.100.11/24"), 6: ("2001:db8::22/64", "2001:db8::11/64")}
"""The node and the router on a LAN; the router and the relay beyond it."""
RELAY = {4: "198.51.100.11:51820", 6: "[2001:db8::11]:51820"}
MEASURE = (
    "import json, sys; from ansible_collections.evio.cni.plugins.module_utils.overlay.path_mtu import path_mtus; "
    "print(json.dumps(path_mtus(sys.argv[1:])))"
)


class Site:
    """A node on a LAN of Ethernet's MTU, a router, and a relay behind the router's uplink."""

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
def test_narrow_uplink_behind_a_router_is_found(narrow: Site, version: int) -> None:
    assert narrow.measure(RELAY[version]) == {RELAY[version]: 1280}
    # And again, from what the kernel remembers.
    assert narrow.measure(RELAY[version]) == {RELAY[version]: 1280}


def test_wide_way_is_as_wide_as_the_node_s_own_link() -> None:
    site = Site(1500)
    try:
        assert site.measure(*RELAY.values()) == dict.fromkeys(RELAY.values(), 1500)
    finally:
        site.close()


def test_relay_to_which_no_way_leads_is_left_out(narrow: Site) -> None:
    narrow.node.run("ip", "-6", "route", "del", "default")
    assert narrow.measure(*RELAY.values()) == {RELAY[4]: 1280}


def test_narrow_uplink_leaves_the_overlay_less(narrow: Site, tmp_path: Path) -> None:
    done = overlay_mtu(narrow.node, tmp_path, relays=["198.51.100.11"])
    assert (done["changed"], done["mtu"], done["underlay"]) == (False, 1200, {RELAY[4]: 1280})
    assert "warnings" not in done


def test_relay_alone_looks_at_its_default_route(narrow: Site, tmp_path: Path) -> None:
    assert overlay_mtu(narrow.relay, tmp_path, endpoint="2001:db8::11")["mtu"] == 1200


def test_wide_underlay_leaves_the_overlay_1420(tmp_path: Path) -> None:
    site = Site(1500)
    try:
        assert overlay_mtu(site.node, tmp_path, relays=list(RELAY.values()))["mtu"] == 1420
    finally:
        site.close()


def test_overlay_that_is_there_gets_less_with_a_warning_and_never_more(narrow: Site, tmp_path: Path) -> None:
    write_overlay(tmp_path, 1420)
    less = overlay_mtu(narrow.node, tmp_path, relays=[RELAY[4]])
    assert less["mtu"] == 1200
    assert "goes from 1420 to 1200: the way to 198.51.100.11:51820 carries 1280 bytes" in json.dumps(less["warnings"])
    write_overlay(tmp_path, 1100)
    same = overlay_mtu(narrow.node, tmp_path, relays=[RELAY[4]])
    assert (same["mtu"], "warnings" in same) == (1100, False)


def test_wanted_mtu_is_taken_and_one_that_does_not_fit_is_warned_of(narrow: Site, tmp_path: Path) -> None:
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
    return run_module("wireguard_mtu_info", namespace, config=str(directory / "overlay.json"), **arguments)


def write_overlay(directory: Path, mtu: int) -> None:
    """What the module overlay has written before."""
    key = create_key(str(directory / "wireguard.key"))
    config = OverlayConfig("node2", "10.10.0.2", "10.10.0.0/16", key, mtu=mtu)
    (directory / "overlay.json").write_text(render_overlay(config))
