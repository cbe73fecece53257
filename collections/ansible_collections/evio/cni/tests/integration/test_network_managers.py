# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Other managers of a node's network leave our interfaces alone: the real systemd-networkd with the role's settings."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest
import yaml

from .overlay_lab import Namespace, wait_until

ROLE = Path(__file__).resolve().parents[2] / "roles/openvswitch"
NETWORKD = "/usr/lib/systemd/systemd-networkd"
HOST_END, NODE_LINK, OVERLAY = "evpod0123456789", "enp9s0", "evio0"

EVERY_E_INTERFACE = """
[Match]
Name=e*
[Network]
Address=192.168.77.7/24
Gateway=192.168.77.1
"""
"""A file as people have it; static in place of DHCP."""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not Path(NETWORKD).exists(), reason="needs systemd-networkd"),
]


def rendered(template: str) -> str:
    """Return the text of the role's template for the WireGuard backend."""
    names = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    assert names["__evio_unmanaged_interfaces"].startswith("{{ ['evpod*'] + ")
    environment = jinja2.Environment(autoescape=False, keep_trailing_newline=True)  # no HTML
    environment.filters["regex_replace"] = lambda text, _pattern, start: start + text
    text = (ROLE / "templates" / template).read_text()
    interfaces = ["evpod*", OVERLAY, "br-evio"]
    return environment.from_string(text).render(ansible_managed="managed", __evio_unmanaged_interfaces=interfaces)


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with an interface of each kind, a /run and an /etc/systemd/network of its own."""
    namespace = Namespace()
    try:
        namespace.run("mount", "-t", "tmpfs", "tmpfs", "/run")
        # As in a container: with a /sys that cannot be written, networkd does not wait for udev.
        namespace.run("mount", "-t", "sysfs", "-o", "ro", "sysfs", "/sys")
        namespace.run("mkdir", "-p", "/run/systemd", "/etc/systemd/network")
        namespace.run("mount", "-t", "tmpfs", "tmpfs", "/etc/systemd/network")
        for number, name in enumerate((HOST_END, NODE_LINK, OVERLAY)):
            add_link(namespace, name, f"peer{number}")
        yield namespace
    finally:
        namespace.close()


def add_link(host: Namespace, name: str, peer: str) -> None:
    host.run("ip", "link", "add", name, "type", "veth", "peer", "name", peer)
    for end in (name, peer):
        host.run("ip", "link", "set", end, "up")


def configured(host: Namespace) -> set[str]:
    """Return the interfaces that have the address of the file for every interface."""
    shown = json.loads(host.run("ip", "-j", "-4", "address").stdout)
    return {link["ifname"] for link in shown for info in link["addr_info"] if info.get("local") == "192.168.77.7"}


def start_networkd(host: Namespace, directory: Path, files: dict[str, str]) -> subprocess.Popen[bytes]:
    for name, text in files.items():
        host.run("tee", f"/etc/systemd/network/{name}", text=text)
    with (directory / "networkd.log").open("ab") as log:
        return subprocess.Popen(host.command(NETWORKD), stdout=log, stderr=log)


@pytest.mark.parametrize("has_settings", [False, True])
def test_networkd_configures_host_ends_only_without_the_roles_settings(
    host: Namespace, tmp_path: Path, has_settings: bool
) -> None:
    files = {"10-lan.network": EVERY_E_INTERFACE}
    if has_settings:
        files["05-evio.network"] = rendered("evio.network.j2")
    networkd = start_networkd(host, tmp_path, files)
    try:
        wait_until(lambda: NODE_LINK in configured(host), 10, "networkd configures the node's own interface")
        if not has_settings:
            wait_until(lambda: configured(host) == {HOST_END, NODE_LINK, OVERLAY}, 10, "networkd takes all of them")
            return
        # A pod that comes while networkd runs.
        add_link(host, "evpodfedcba9876", "eth0")
        # networkd meets the interfaces in the order of their numbers: it has passed the host end by now.
        wait_until(lambda: "eth0" in configured(host), 10, "networkd configures an interface that came later")
        assert configured(host) == {NODE_LINK, "eth0"}
        defaults = json.loads(host.run("ip", "-j", "route", "show", "default").stdout)
        assert {route["dev"] for route in defaults} <= {NODE_LINK, "eth0"}
    finally:
        networkd.terminate()
        networkd.wait(10)


def test_network_manager_gets_the_same_interfaces() -> None:
    assert (
        "[keyfile]\nunmanaged-devices+=interface-name:evpod*;interface-name:evio0;interface-name:br-evio"
        in rendered("network_manager.conf.j2")
    )
