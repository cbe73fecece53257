# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Networks of a host inside the overlay's networks: what is a conflict, and what is not."""

from __future__ import annotations

import pytest
from ansible_collections.evio.cni.plugins.module_utils.kernel.networks_in_use import (
    ADDRESS,
    GATEWAY,
    ROUTE,
    NetworkUse,
    networks_in_use,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.conflicts import find_conflict
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import overlay_networks

NETWORKS = overlay_networks("10.10.0.0/16", ["10.244.0.0/16", "fd00:10:244::/56"])


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (NetworkUse("eth0", ADDRESS, "10.10.3.4/24"), "eth0 has the address 10.10.3.4/24, inside the host overlay"),
        (NetworkUse("eth0", ADDRESS, "10.10.3.4/8"), "inside the host overlay 10.10.0.0/16"),
        (NetworkUse("eth1", ROUTE, "10.10.128.0/17"), "eth1 has the route to 10.10.128.0/17"),
        (NetworkUse("eth1", ROUTE, "10.10.0.0/16"), "inside the host overlay"),
        (NetworkUse("eth0", GATEWAY, "10.10.0.1/32"), "eth0 has the gateway 10.10.0.1/32"),
        (NetworkUse("", ROUTE, "10.244.7.0/24"), "this host has the route to 10.244.7.0/24, inside the pod overlay"),
        (NetworkUse("cni0", ADDRESS, "10.244.9.1/24"), "cni0"),
        (NetworkUse("eth0", ADDRESS, "fd00:10:244:1::5/64"), "the pod overlay's second network"),
        (NetworkUse("fan-240", ROUTE, "247.0.0.0/8"), "the overlay's probe network"),
    ],
)
def test_network_of_another_interface_inside_the_overlay_is_a_conflict(use: NetworkUse, words: str) -> None:
    assert words in (find_conflict([use], NETWORKS, ["evio0", "br-evio"], ["10.244.3.0/24"]) or "")


@pytest.mark.parametrize(
    "use",
    [
        NetworkUse("eth0", ADDRESS, "192.168.1.7/24"),
        NetworkUse("eth0", ROUTE, "10.0.0.0/8"),
        NetworkUse("eth0", ROUTE, "0.0.0.0/1"),
        NetworkUse("eth0", GATEWAY, "fe80::1/128"),
        NetworkUse("eth0", ADDRESS, "169.254.0.2/16"),
        NetworkUse("evio0", ADDRESS, "10.10.0.3/16"),
        NetworkUse("evio0", ROUTE, "10.244.0.0/16"),
        NetworkUse("br-evio", ADDRESS, "10.244.9.1/24"),
        NetworkUse("pods", ADDRESS, "10.244.3.1/24"),
        NetworkUse("pods", ROUTE, "10.244.3.0/24"),
    ],
)
def test_other_networks_and_the_overlays_own_are_no_conflict(use: NetworkUse) -> None:
    assert find_conflict([use], NETWORKS, ["evio0", "br-evio"], ["10.244.3.0/24"]) is None


def test_addresses_of_this_host_are_read() -> None:
    assert NetworkUse("lo", ADDRESS, "127.0.0.1/8") in networks_in_use()
