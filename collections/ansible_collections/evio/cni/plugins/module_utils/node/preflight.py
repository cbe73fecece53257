# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What will go wrong on a host, before anything is changed there: one row for each check, with its remedy.

Needs no package on the host: the checks run before any is installed. The inventory's mistakes are ``inventory``'s
subject.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from .. import paths
from ..cni import conf_dir, cri
from ..errors import EvioError
from ..firewall.forwarding import blocked, forwarding_needs, input_need, uplink
from ..firewall.verdict import Packet
from ..kernel.netns import has_interface
from ..kernel.networks_in_use import ADDRESS, networks_in_use
from ..kernel.nft_generation import RulesetGeneration
from ..mtu import LEAST_OVERLAY_MTU
from ..overlay import nat_mapping
from ..overlay.conflicts import find_conflict
from ..overlay.endpoint import is_named
from ..overlay.name_lookup import resolve_endpoint
from ..overlay.path_mtu import path_mtus
from ..overlay.wireguard.config import INTERFACE, OVERHEAD, overlay_networks
from ..overlay.wireguard.device import port_holder_fault
from ..ovs.datapath import probe_datapath
from ..programs.installation import INTERPRETER, OLDEST_PYTHON
from .quick_checks import ERROR, OK, WARNING, Row, other_network_rows, rp_filter_rows, tun_rows

_INSTANCES_NEEDED = 16
"""inotify instances: containerd takes 8 when it starts (measured), kubelet and systemd some more."""

_NAT_SECONDS = 3.0

_MANAGERS = {
    "NetworkManager": "/run/NetworkManager",
    "dhcpcd": "/run/dhcpcd",
    "ConnMan": "/run/connman",
}
"""Programs that configure interfaces, and what is there while they run. The role openvswitch tells systemd-networkd."""


@dataclass(frozen=True)
class Plans:
    """What the host is going to be. Networks are in CIDR notation, endpoints ``address:port`` or ``name:port``."""

    host_cidr: str
    pod_cidrs: tuple[str, ...]
    service_cidrs: tuple[str, ...] = ()
    listen_port: int = 51820
    is_relay: bool = False
    relays: Mapping[str, str] = field(default_factory=dict)
    """Endpoints of the other nodes that relay, by name."""
    bridge: str = "br-evio"
    conf_dir: str = paths.CNI_CONF_DIR
    nat_token: str = ""
    """Token of the responders on the relays; empty if none run."""
    names: tuple[str, ...] = ()
    """Further endpoints that the host has to look up."""


def check_host(plans: Plans) -> tuple[list[Row], str]:
    """Return a row for each check but the clock's, and the kind of the site's NAT.

    Changes nothing; takes a few seconds.
    """
    checks: tuple[Callable[[Plans], Iterator[Row]], ...] = (
        _python,
        _kernel,
        _port,
        _networks,
        _link_local,
        _firewalls,
        _rp_filter,
        _other_networks,
        _managers,
        _inotify,
        _names,
        _mtu,
    )
    rows = []
    for check in checks:
        try:
            rows += list(check(plans))
        except (EvioError, OSError) as error:
            rows.append(
                Row(check.__name__.strip("_").replace("_", " "), WARNING, f"not known: {error}", "look by hand")
            )
    row, kind = _nat(plans)
    return [*rows, row], kind


def _python(_plans: Plans) -> Iterator[Row]:
    wanted = ".".join(map(str, OLDEST_PYTHON))
    command = [INTERPRETER, "-ISE", "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        version = tuple(map(int, done.stdout.split()))
    except (OSError, ValueError, subprocess.SubprocessError):
        yield Row("Python", ERROR, f"{INTERPRETER} does not run", "apt-get install python3")
        return
    text = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        yield Row("Python", ERROR, f"{INTERPRETER} is {text}; the plugin needs {wanted}", "upgrade the distribution")
    else:
        yield Row("Python", OK, f"{INTERPRETER} is {text}")


def _kernel(_plans: Plans) -> Iterator[Row]:
    with closing(RulesetGeneration()) as generation:
        has_nftables = generation.read() is not None
    if not has_nftables:
        yield Row("nftables", ERROR, "the kernel has no nftables, which masquerades pods", "modprobe nf_tables")
    else:
        yield Row("nftables", OK, "the kernel has nftables")
    if not os.path.exists("/proc/self/ns/net"):
        yield Row("namespaces", ERROR, "the kernel has no network namespaces", "take a kernel with CONFIG_NET_NS")
    yield from tun_rows()
    if _has_module("wireguard"):
        yield Row("WireGuard", OK, "the kernel has WireGuard")
    else:
        yield Row(
            "WireGuard",
            WARNING,
            "the kernel has no WireGuard, so wireguard-go encrypts, which takes several times the CPU",
            "take a kernel with the module wireguard: apt-get install linux-image-amd64",
        )
    if probe_datapath() == "system":
        yield Row("datapath", OK, "the kernel has Open vSwitch's datapath")
    else:
        yield Row(
            "datapath",
            WARNING,
            "the kernel has no module openvswitch, so vswitchd forwards pods' packets itself, which takes more CPU",
            "take a kernel with the module openvswitch: apt-get install linux-image-amd64",
        )


def _has_module(name: str) -> bool:
    """Return whether a module is loaded, built in, or can be loaded (modules.dep(5))."""
    if os.path.isdir(f"/sys/module/{name}"):
        return True
    for index in ("modules.dep", "modules.builtin"):
        try:
            with open(f"/lib/modules/{os.uname().release}/{index}", encoding="utf-8") as lines:
                if any(f"/{name}.ko" in line.partition(":")[0] for line in lines):
                    return True
        except OSError:
            continue
    return False


def _port(plans: Plans) -> Iterator[Row]:
    if has_interface(INTERFACE):
        yield Row("ports", OK, f"{INTERFACE} is there already")
        return
    fault = port_holder_fault(plans.listen_port)
    # On a relay, the responder of this run has the port.
    if fault is not None and not _is_responder(plans):
        what, _separator, remedy = fault.partition("; find it with: ")
        yield Row("ports", ERROR, what, remedy)
    else:
        yield Row("ports", OK, f"UDP port {plans.listen_port} is free")


def _is_responder(plans: Plans) -> bool:
    own = {"this host": [f"127.0.0.1:{plans.listen_port}"]}
    return bool(plans.nat_token) and bool(nat_mapping.ask(own, plans.nat_token, _NAT_SECONDS)[0])


def _networks(plans: Plans) -> Iterator[Row]:
    own = [INTERFACE, plans.bridge]
    networks = overlay_networks(plans.host_cidr, plans.pod_cidrs)
    networks |= {f"the network of Services {cidr}": cidr for cidr in plans.service_cidrs}
    conflict = find_conflict(networks_in_use(), networks, own)
    if conflict is not None:
        what, _separator, _rest = conflict.partition(": this host would lose")
        yield Row("networks", ERROR, what, "set evio_host_overlay_cidr, evio_pod_cidr to networks that no host uses")
    else:
        yield Row("networks", OK, "no other interface has an address or route inside the overlay's networks")


def _link_local(_plans: Plans) -> Iterator[Row]:
    own = {use.cidr.partition("/")[0] for use in networks_in_use() if use.kind == ADDRESS}
    # IPv6 has a link-local address on each interface.
    found = sorted(address for address in own if ":" not in address and ip_address(address).is_link_local)
    if found:
        yield Row(
            "link-local",
            WARNING,
            f"the host itself has {', '.join(found[:5])}, and pods reach what listens there, such as a cache of DNS",
            "look which programs listen there: ss -ltunp",
        )
    else:
        yield Row("link-local", OK, "the host has no link-local service of its own")


def _firewalls(plans: Plans) -> Iterator[Row]:
    host, pods = ip_network(plans.host_cidr), ip_network(plans.pod_cidrs[0])
    here, there = str(pods[258 % pods.num_addresses]), str(pods[514 % pods.num_addresses])
    needs = forwarding_needs(
        plans.bridge,
        [Packet(here, there, plans.bridge, INTERFACE), Packet(there, here, INTERFACE, plans.bridge)],
    )
    if plans.is_relay:
        first, second = str(host[2]), str(host[3])
        needs += forwarding_needs(INTERFACE, [Packet(first, second, INTERFACE, INTERFACE)])
        encrypted = Packet("8.8.8.8", None, uplink(), None, "udp", None, plans.listen_port)
        needs.append(input_need(encrypted))
    chains = blocked(needs)
    for chain in chains:
        if re.match(r"(ip6? filter|iptables-legacy filter) (FORWARD|INPUT)$|inet firewalld ", chain.chain):
            yield Row("firewalls", OK, f"{chain.chain} drops packets of pods or nodes; the playbook puts a rule there")
        else:
            what, _separator, _remedy = str(chain).partition("; remedy: ")
            yield Row("firewalls", ERROR, what, chain.remedy)
    if not chains:
        yield Row("firewalls", OK, "no chain drops packets of pods or nodes")


def _rp_filter(_plans: Plans) -> Iterator[Row]:
    yield from rp_filter_rows()


def _other_networks(plans: Plans) -> Iterator[Row]:
    found = False
    try:
        conf_dir.refuse_competitors(plans.conf_dir)
    except EvioError as error:
        found = True
        what, _separator, remedy = str(error).partition("; ")
        yield Row("other CNI", ERROR, what, remedy)
    for row in other_network_rows():
        found = True
        yield row
    if not found:
        yield Row("other CNI", OK, "there is no other pod network")


def _managers(plans: Plans) -> Iterator[Row]:
    running = [name for name, sign in _MANAGERS.items() if os.path.exists(sign)]
    strangers = [name for name in running if name != "NetworkManager"]
    for name in strangers:
        yield Row(
            "managers",
            WARNING,
            f"{name} runs, and may configure the interfaces of pods",
            f"tell {name} to leave {INTERFACE}, {plans.bridge} and veth* alone (denyinterfaces)",
        )
    if not strangers:
        told = "NetworkManager runs; the playbook tells it to leave our interfaces alone" if running else ""
        yield Row("managers", OK, told or "no program but systemd-networkd configures interfaces")


def _inotify(_plans: Plans) -> Iterator[Row]:
    used, limit = cri.inotify_instances()
    if limit and limit - used < _INSTANCES_NEEDED:
        yield Row(
            "inotify",
            ERROR,
            f"root has {used} of {limit} inotify instances; containerd and kubelet need {_INSTANCES_NEEDED} more",
            "sysctl -w fs.inotify.max_user_instances=1024, and in a file of /etc/sysctl.d",
        )
    else:
        yield Row("inotify", OK, f"root has {used} of {limit} inotify instances")


def _names(plans: Plans) -> Iterator[Row]:
    named = [endpoint for endpoint in (*plans.relays.values(), *plans.names) if is_named(endpoint)]
    lost = [endpoint for endpoint in dict.fromkeys(named) if not resolve_endpoint(endpoint)]
    for endpoint in lost:
        name = endpoint.rpartition(":")[0]
        yield Row(
            "DNS", ERROR, f"{name} has no address that can be used", f"getent ahosts {name}; cat /etc/resolv.conf"
        )
    if not lost:
        yield Row("DNS", OK, "all names have addresses" if named else "no node is found by a name")


def _mtu(plans: Plans) -> Iterator[Row]:
    endpoints = [address for endpoint in plans.relays.values() for address in resolve_endpoint(endpoint)[:1]]
    mtus = path_mtus(endpoints)
    if not mtus:
        yield Row("MTU", OK, "there is no relay to which a path could be measured")
        return
    endpoint = min(mtus, key=mtus.__getitem__)
    least = LEAST_OVERLAY_MTU[6] + OVERHEAD
    if mtus[endpoint] < least:
        yield Row(
            "MTU",
            ERROR,
            f"the path to {endpoint} carries packets of {mtus[endpoint]} bytes; the overlay needs {least}",
            f"raise the MTU of the uplink: ip link set dev {uplink() or 'UPLINK'} mtu 1500",
        )
    else:
        yield Row("MTU", OK, f"the paths to relays carry packets of {mtus[endpoint]} bytes")


def _nat(plans: Plans) -> tuple[Row, str]:
    """Return the row about the site's NAT, and its kind."""
    if not plans.nat_token or not plans.relays:
        return Row("NAT", OK, "it was not looked at: no relay answers"), nat_mapping.UNKNOWN
    relays: dict[str, Sequence[str]] = {}
    for name, endpoint in plans.relays.items():
        found = [address for address in resolve_endpoint(endpoint) if not address.startswith("[")][:1]
        hosts = [address.rpartition(":")[0] for address in found]
        relays[name] = [*found, *(f"{host}:{nat_mapping.RESPONDER_PORT}" for host in hosts)]
    try:
        seen, own = nat_mapping.ask(
            {name: targets for name, targets in relays.items() if targets}, plans.nat_token, _NAT_SECONDS
        )
    except (OSError, ValueError) as error:
        return Row("NAT", WARNING, f"not known: {error}", "look by hand"), nat_mapping.UNKNOWN
    kind = nat_mapping.kind_of(seen, own)
    addresses = ", ".join(sorted({endpoint.rpartition(":")[0] for endpoint in seen.values()}))
    silent = sorted(set(relays) - set(seen))
    if not seen:
        return (
            Row(
                "NAT",
                ERROR,
                f"no relay answers by UDP: {', '.join(silent[:5])}",
                f"let UDP port {plans.listen_port} out of this site, and into the relays' (their cloud's firewall)",
            ),
            kind,
        )
    sentences = {
        nat_mapping.NONE: "the relays see the host's own address: there is no NAT",
        nat_mapping.INDEPENDENT: f"behind {addresses}; it keeps one outside port for all, so direct ways are possible",
        nat_mapping.UNKNOWN: f"behind {addresses}; it takes two relays to tell its kind",
    }
    if kind in sentences:
        return Row("NAT", OK, sentences[kind]), kind
    return (
        Row(
            "NAT",
            WARNING,
            f"behind {addresses}; it takes another outside port for each destination, so ways to nodes behind such "
            "NATs lead through a relay",
            f"forward UDP port {plans.listen_port} of the router to the host, and give it as evio_public_endpoint",
        ),
        kind,
    )
