# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The kernel's reports of changes: those of the overlay's interface concern the agent, those of all others do not."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterator

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.link_events import LinkEvents

from .ovs_daemons import in_namespace, inside_namespace

pytestmark = pytest.mark.root

Ip = Callable[..., None]


@pytest.fixture
def ip(netns: str) -> Ip:
    """A function that runs ip(8) in the namespace."""

    def run(command: str) -> None:
        in_namespace(netns, "ip", *command.split())

    return run


@pytest.fixture
def events(netns: str, ip: Ip) -> Iterator[LinkEvents]:
    """The reports of a namespace with the interfaces evio0 and other, which are up and have an address and a route."""
    for number, name in enumerate(("evio0", "other"), 1):
        ip(f"link add {name} type bridge")
        ip(f"address add 10.{number}.0.1/16 dev {name}")
        ip(f"link set {name} up")
        ip(f"route add 172.16.{number}.0/24 dev {name}")
    with inside_namespace(netns), selectors.DefaultSelector() as selector:
        link_events = LinkEvents(selector, "link")
        link_events.read("evio0")
        yield link_events


DAMAGES = [
    "link set {0} down",
    "link set {0} mtu 1300",
    "link set {0} down name renamed",
    "link del {0}",
    "address flush dev {0}",
    "address add 10.9.0.1/32 dev {0}",
    "-6 address add fd00::9/128 dev {0}",
    "route flush dev {0}",
    "-6 route add fd01::/64 dev {0}",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_change_of_the_interface_concerns_once(events: LinkEvents, ip: Ip, damage: str) -> None:
    assert not events.read("evio0").of_interface
    ip(damage.format("evio0"))
    assert events.read("evio0").of_interface
    assert not events.read("evio0").of_interface


@pytest.mark.parametrize("damage", DAMAGES)
def test_change_of_another_interface_does_not_concern(events: LinkEvents, ip: Ip, damage: str) -> None:
    ip(damage.format("other"))
    assert not events.read("evio0").of_interface


NETWORK_CHANGES = [
    "address add 10.9.0.1/32 dev other",
    "address flush dev other",
    "-6 address add fd00::9/128 dev other",
    "route add 172.17.0.0/16 dev other",
    "route flush dev other",
    "-6 route add fd01::/64 dev other",
]


@pytest.mark.parametrize("change", NETWORK_CHANGES)
def test_change_of_an_address_or_a_route_of_the_host_is_one_of_its_networks(
    events: LinkEvents, ip: Ip, change: str
) -> None:
    assert not events.read("evio0").of_networks
    ip(change)
    assert events.read("evio0").of_networks


def test_interface_of_a_pod_changes_no_network(events: LinkEvents, ip: Ip) -> None:
    ip("link add pod type veth peer name inside")
    ip("link set inside up")
    ip("link set pod up")
    # The kernel gives it a link-local address and routes for it; duplicate address detection ends after a second.
    time.sleep(1.5)
    ip("link del pod")
    assert not events.read("evio0").of_networks


def test_interface_that_is_created_concerns(events: LinkEvents, ip: Ip) -> None:
    ip("link del evio0")
    events.read("evio0")
    ip("link add evio0 type bridge")
    assert events.read("evio0").of_interface


def test_reports_for_which_the_kernel_had_no_room_concern(netns: str, events: LinkEvents) -> None:
    command = (
        "for number in $(seq 4000); do echo address add 10.2.$((number / 250)).$((number % 250 + 2))/32 dev other; done"
    )
    in_namespace(netns, "sh", "-c", f"{{ {command}; }} | ip -batch -")
    assert any(events.read("evio0").of_interface for _time in range(100))
