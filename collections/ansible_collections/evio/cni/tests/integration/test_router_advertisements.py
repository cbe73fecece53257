# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host whose IPv6 default route comes from router advertisements keeps it when it begins to forward IPv6."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .overlay_lab import COLLECTIONS, Namespace, wait_until

pytestmark = pytest.mark.root

ROUTER = """
import socket, struct, time
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("lan"))
prefix = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 3600, 3600, 0, socket.inet_pton(socket.AF_INET6, "2001:db8:5::"))
while True:
    try:
        raw.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix, ("ff02::1", 0))
    except OSError:
        pass  # The link-local address is being checked for duplicates.
    time.sleep(0.3)
"""
"""Sends router advertisements (RFC 4861 section 4.2) for 2001:db8:5::/64."""

FORWARD = """
import sys
sys.path.insert(0, sys.argv[1])
from ansible_collections.evio.cni.plugins.module_utils.kernel.sysctl import settings_file_change, write_sysctls
wanted = {"net/ipv6/conf/all/forwarding": "1"}
write_sysctls(wanted)
change = settings_file_change(sys.argv[2], wanted)
change.apply()
print(change.changed)
"""


@pytest.fixture
def host() -> Iterator[Namespace]:
    """Return a host with the uplink "up0.5", on which a router advertises, and the interface "other"."""
    host, router = Namespace(), Namespace()
    try:
        host.run("ip", "link", "add", "up0.5", "type", "veth", "peer", "name", "lan", "netns", str(router.pid))
        host.run("ip", "link", "add", "other", "type", "veth", "peer", "name", "far")
        for namespace, interface in ((router, "lan"), (host, "up0.5"), (host, "other")):
            namespace.run("ip", "link", "set", interface, "up")
        router.run("sh", "-c", f"nohup {sys.executable} -c '{ROUTER}' >/dev/null 2>&1 &")
        wait_until(lambda: has_default_route(host), 15, "a default route of the router")
        yield host
    finally:
        host.close()
        router.close()


def has_default_route(host: Namespace) -> bool:
    return "proto ra" in host.run("ip", "-6", "route", "show", "default").stdout


def accept_ra(host: Namespace, interface: str) -> str:
    return host.run("cat", f"/proc/sys/net/ipv6/conf/{interface}/accept_ra").stdout.strip()


def forward(host: Namespace, settings_file: Path) -> bool:
    output = host.run(sys.executable, "-c", FORWARD, str(COLLECTIONS), str(settings_file)).stdout
    return output.strip() == "True"


def test_default_route_of_a_router_advertisement_stays(host: Namespace, tmp_path: Path) -> None:
    settings = tmp_path / "60-evio.conf"
    assert forward(host, settings)
    assert host.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding").stdout.strip() == "1"
    assert has_default_route(host)
    assert accept_ra(host, "up0.5") == "2"
    assert accept_ra(host, "other") == "1"
    assert "net.ipv6.conf.up0/5.accept_ra = 2\n" in settings.read_text()
    assert not forward(host, settings)


def test_setting_for_the_next_boot_stays_while_the_router_is_away(host: Namespace, tmp_path: Path) -> None:
    settings = tmp_path / "60-evio.conf"
    forward(host, settings)
    before = settings.read_text()
    host.run("ip", "-6", "route", "flush", "proto", "ra")
    assert not forward(host, settings)
    assert settings.read_text() == before


def test_interface_whose_advertisements_another_program_reads_is_left_alone(host: Namespace, tmp_path: Path) -> None:
    host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/up0.5/accept_ra")
    forward(host, tmp_path / "60-evio.conf")
    assert accept_ra(host, "up0.5") == "0"
    assert "accept_ra" not in (tmp_path / "60-evio.conf").read_text()
