# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A pod's attachment, as the specification's verbs have it: ADD makes one, DEL leaves nothing of it, CHECK compares.

Everything that an ADD has made, DEL finds by the container's id and the interface's name alone, so what a killed ADD
left behind goes with the next DEL. Imports are only those that every call needs.
"""

from __future__ import annotations

import _socket
import posix

from .cni_protocol import FAILED, INVALID_ENVIRONMENT, NOT_AS_ATTACHED, TRY_AGAIN, Call, CniError
from .errors import EvioError
from .ipam import IpamCall
from .journal import Journal
from .masquerade import Masquerade
from .netconf import NetConf
from .netlink import NetlinkError
from .openflow import OpenFlowError
from .ovsdb_rpc import Ovsdb, SwitchError
from .ownership import (
    ADDRESS_ID,
    CONTAINER_ID,
    EPOCH_ID,
    IFNAME_ID,
    INTERFACE_ID,
    MAC_ID,
    NETWORK_ID,
    OWNER,
    OWNER_ID,
    bridge_mac,
    host_ifname,
)
from .port_guard import guard, is_guarded, unguard
from .rtnetlink import AF_INET, AF_INET6, Link, Netlink, packed, split_cidr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .bridge_spec import BridgeSpec

_EEXIST = 17
_USERSPACE_TSO = "userspace-tso-enable"
_DEFAULT_ROUTE = {4: "0.0.0.0/0", 6: "::/0"}


def add(call: Call, conf: NetConf) -> dict[str, Any]:
    """Attach the pod and return the result in its newest shape. Raises CniError with nothing left behind."""
    journal = Journal(conf.state_dir, conf.name)
    if _is_stale(journal.read(call.container_id, call.ifname)):
        _detach(call, conf, journal, quietly=True)
    if journal.read(call.container_id, call.ifname) is not None:
        raise CniError(FAILED, f"{call.container_id} has {call.ifname} already; DEL it before it is added again")
    netns = _open_netns(call.netns)
    try:
        entry = {
            "netns": call.netns,
            "host": host_ifname(call.container_id, call.ifname),
            "bridge": conf.bridge,
            "ovsdb": conf.ovsdb,
            "config": {key: value for key, value in conf.raw.items() if key != "prevResult"},
            "path": call.path,
            "boot": boot_id(),
        }
        try:
            journal.write(call.container_id, call.ifname, entry)
            result = _attach(call, conf, netns, entry)
            journal.write(call.container_id, call.ifname, entry)
        except BaseException:
            _detach(call, conf, journal, quietly=True)
            raise
        return result
    finally:
        posix.close(netns)


def delete(call: Call, conf: NetConf) -> None:
    """Leave nothing of the attachment, whatever of it there is. Raises CniError where IPAM cannot release it."""
    _detach(call, conf, Journal(conf.state_dir, conf.name), quietly=False)


def check(call: Call, conf: NetConf) -> None:
    """Raise CniError for the first thing that is not as ADD has left it; TRY_AGAIN where that cannot be told now."""
    if conf.previous is None:
        raise CniError(INVALID_ENVIRONMENT, "CHECK needs the result of ADD: prevResult is not in the configuration")
    name = host_ifname(call.container_id, call.ifname)
    ipam = _start_ipam("CHECK", call, conf)
    try:
        _check_pod(call, conf)
        _check_host(conf, name)
        try:
            _check_port(conf, name)
        except (SwitchError, OpenFlowError) as error:
            raise CniError(TRY_AGAIN, str(error)) from None
    finally:
        failure = _finish_quietly(ipam)
    if failure is not None:
        raise failure


def _is_stale(entry: dict[str, Any] | None) -> bool:
    """Whether an entry speaks of what is over: a DEL that could not finish, or another boot of the host."""
    return entry is not None and (bool(entry.get("deleted")) or entry.get("boot") != boot_id())


def _attach(call: Call, conf: NetConf, netns: int, entry: dict[str, Any]) -> dict[str, Any]:
    """All of ADD's work; IPAM's process runs beside the kernel's."""
    ipam = _start_ipam("ADD", call, conf)
    host = Netlink()
    try:
        ovsdb = Ovsdb(conf.ovsdb)
        try:
            bridge, other_config = _ready_bridge(conf, host, ovsdb)
            mtu = conf.mtu or bridge.mtu
            mac, host_mac = _pod_mac(call, conf), _random_mac()
            _create_veth(host, entry["host"], host_mac, call.ifname, mac, netns, mtu)
            answer = ipam.finish()
            ips = _addresses(answer)
            entry.update(mac=mac.hex(":"), ips=[ip["address"] for ip in ips])
            # All that is to be said of the port in one change: vswitchd goes through all its ports at each.
            ids = external_ids(call.container_id, call.ifname, conf.name, entry["mac"], entry["ips"])
            ofport = ovsdb.add_port(conf.bridge, entry["host"], ids)
        finally:
            ovsdb.close()
        if conf.port_security:
            guard(conf, entry["host"], ofport, entry["mac"], entry["ips"])
        routes = _routes(conf, answer, ips)
        _set_up_pod(netns, call.ifname, ips, routes, _needs_checksums(conf, other_config))
        if conf.ip_masq:
            masquerade_of(conf, [ip["address"] for ip in ips]).ensure()
    finally:
        host.close()
        if not ipam.is_finished:
            _finish_quietly(ipam)
    interfaces = [
        {"name": conf.bridge, "mac": bridge.mac, "mtu": bridge.mtu},
        {"name": entry["host"], "mac": host_mac.hex(":"), "mtu": mtu},
        {"name": call.ifname, "mac": mac.hex(":"), "mtu": mtu, "sandbox": call.netns},
    ]
    return _merge(conf, interfaces, ips, routes, answer)


def _detach(call: Call, conf: NetConf, journal: Journal, *, quietly: bool) -> None:
    """Port, veth, reservation, and last the journal's entry: it goes only when all the rest has.

    An Open vSwitch that is down keeps its row, and the entry with it, for the next DEL, GC or repair.
    """
    name = host_ifname(call.container_id, call.ifname)
    failure: EvioError | None = None
    ipam: IpamCall | None = None
    try:
        ipam = _start_ipam("DEL", call, conf)
    except CniError as error:
        failure = error
    unplugged = _unplug(conf.ovsdb, name)
    try:
        _delete_veth(name)
    except NetlinkError as error:
        failure = failure or error
    if conf.port_security:
        # Last, so that the port is never open; and vswitchd, which was taking the device off, has done so meanwhile.
        unplugged = unguard(conf, name) and unplugged
    if ipam is not None:
        failure = _finish_quietly(ipam) or failure
    if failure is None and unplugged:
        journal.remove(call.container_id, call.ifname)
    elif failure is None:
        entry = journal.read(call.container_id, call.ifname)
        if entry is not None:
            journal.write(call.container_id, call.ifname, {**entry, "deleted": True})
    if failure is not None and not quietly:
        raise failure


def _unplug(ovsdb: str, name: str) -> bool:
    """Take the port off its bridge; False if the database cannot be asked now."""
    try:
        connection = Ovsdb(ovsdb)
        try:
            connection.delete_ports([name])
        finally:
            connection.close()
    except SwitchError:
        return False
    return True


def _delete_veth(name: str) -> None:
    host = Netlink()
    try:
        host.delete_link(name)
    finally:
        host.close()


def _start_ipam(command: str, call: Call, conf: NetConf) -> IpamCall:
    variables = {"CNI_CONTAINERID": call.container_id, "CNI_IFNAME": call.ifname, "CNI_NETNS": call.netns}
    return IpamCall(command, conf.ipam_type, call.path, conf.raw, variables)


def _finish_quietly(ipam: IpamCall) -> CniError | None:
    try:
        ipam.finish()
    except CniError as error:
        return error
    return None


def _open_netns(path: str) -> int:
    try:
        netns = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS {path!r} cannot be opened: {error.strerror}") from None
    there, here = posix.fstat(netns), posix.stat("/proc/thread-self/ns/net")
    if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
        posix.close(netns)
        raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS {path!r} is the host's own network, not a pod's")
    return netns


def _ready_bridge(conf: NetConf, host: Netlink, ovsdb: Ovsdb) -> tuple[Link, dict[str, str]]:
    """The bridge, as the configuration wants it, and the switch's other_config. Mended where it is not."""
    other_config, row = ovsdb.switch(conf.bridge)
    link = host.link(conf.bridge)
    if row is None or link is None or not _is_as_wanted(conf, host, link):
        _mend_bridge(conf)
        link = host.link(conf.bridge)
        if link is None:
            raise CniError(FAILED, f"the bridge {conf.bridge} has gone again; is another program at work on it?")
    return link, other_config


def _is_as_wanted(conf: NetConf, host: Netlink, link: Link) -> bool:
    if not link.is_up or (conf.mtu is not None and link.mtu != conf.mtu):
        return False
    if not conf.gateways:
        return True
    wanted = {split_cidr(gateway) for gateway in conf.gateways}
    fixed = bridge_mac(split_cidr(conf.gateways[0])[0])
    return link.mac == fixed and wanted <= host.addresses(link.index)


def boot_id() -> str:
    """What tells this boot of the host from others: no attachment outlives one."""
    descriptor = posix.open("/proc/sys/kernel/random/boot_id", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(descriptor, 64).decode().strip()
    finally:
        posix.close(descriptor)


def _mend_bridge(conf: NetConf) -> None:
    """The rare path, with the libraries that modules use: they are the host's own, which -S has hidden."""
    import sys

    sys.path.append("/usr/lib/python3/dist-packages")
    from .bridge import ensure_bridge

    try:
        ensure_bridge(bridge_of(conf), ovsdb=conf.ovsdb)
    except EvioError as error:
        raise CniError(FAILED, str(error)) from None


def bridge_of(conf: NetConf) -> BridgeSpec:
    """The bridge as the configuration wants it, for the room that makes bridges."""
    from .bridge_spec import BridgeSpec

    epoch = {EPOCH_ID: str(conf.epoch)} if conf.epoch else {}
    return BridgeSpec(
        conf.bridge,
        tuple(conf.gateways),
        mtu=conf.mtu,
        datapath_type=conf.datapath_type,
        external_ids={OWNER_ID: OWNER, **epoch},
    )


def _create_veth(host: Netlink, name: str, host_mac: bytes, ifname: str, mac: bytes, netns: int, mtu: int) -> None:
    try:
        host.create_veth(name, host_mac, ifname, mac, netns, mtu)
    except NetlinkError as error:
        if error.errno == _EEXIST:
            raise CniError(FAILED, f"the pod has an interface {ifname} already, or the host one named {name}") from None
        raise CniError(FAILED, str(error)) from None


def _pod_mac(call: Call, conf: NetConf) -> bytes:
    wanted = conf.mac or call.arguments.get("MAC")
    if not wanted:
        return _random_mac()
    try:
        mac = bytes.fromhex(wanted.replace(":", ""))
    except ValueError:
        mac = b""
    if len(mac) != 6 or mac[0] & 1:
        raise CniError(INVALID_ENVIRONMENT, f"mac: {wanted!r} is not the address of one interface")
    return mac


def _random_mac() -> bytes:
    mac = bytearray(posix.urandom(6))
    mac[0] = mac[0] & 0xFE | 0x02  # Of one interface, and locally administered (IEEE 802).
    return bytes(mac)


def _addresses(answer: dict[str, Any]) -> list[dict[str, Any]]:
    ips = answer.get("ips")
    if not isinstance(ips, list) or not ips:
        raise CniError(FAILED, "the IPAM plugin has given no address")
    return [
        {"interface": 2, "address": ip["address"], **({"gateway": ip["gateway"]} if ip.get("gateway") else {})}
        for ip in ips
    ]


def _routes(conf: NetConf, answer: dict[str, Any], ips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """IPAM's routes, and the default route of each family that has an address and none yet."""
    gateways = {_family(gateway): gateway.partition("/")[0] for gateway in conf.gateways}
    for ip in ips:
        if ip.get("gateway"):
            gateways[_family(ip["address"])] = ip["gateway"]
    routes = []
    for route in answer.get("routes") or ():
        gateway = route.get("gw") or gateways.get(_family(route["dst"]))
        routes.append({**route, **({"gw": gateway} if gateway else {})})
    if conf.is_default_gateway:
        has = {_family(route["dst"]) for route in routes if route["dst"] in _DEFAULT_ROUTE.values()}
        for family in dict.fromkeys(_family(ip["address"]) for ip in ips):
            if family not in has and family in gateways:
                routes.append({"dst": _DEFAULT_ROUTE[family], "gw": gateways[family]})
    return routes


def external_ids(container_id: str, ifname: str, network: str, mac: str, addresses: list[str]) -> dict[str, str]:
    """By what a pod's port says whose it is; addresses may have their prefix lengths."""
    return {
        OWNER_ID: OWNER,
        CONTAINER_ID: container_id,
        IFNAME_ID: ifname,
        NETWORK_ID: network,
        INTERFACE_ID: f"{container_id}:{ifname}",
        MAC_ID: mac,
        ADDRESS_ID: ",".join(address.partition("/")[0] for address in addresses),
    }


def _needs_checksums(conf: NetConf, other_config: dict[str, str]) -> bool:
    """vswitchd's datapath passes on what it gets: without its TSO, a pod must fill in its checksums itself."""
    return conf.datapath_type == "netdev" and other_config.get(_USERSPACE_TSO) != "true"


def _set_up_pod(
    netns: int, ifname: str, ips: list[dict[str, Any]], routes: list[dict[str, Any]], checksums: bool
) -> None:
    pod = Netlink(netns)
    try:
        link = pod.link(ifname)
        if link is None:
            raise CniError(FAILED, f"{ifname} has gone from the pod while it was set up")
        if checksums:
            from .offload import disable_tx_checksum

            disable_tx_checksum(netns, link.index)
        pod.set_up(
            link.index,
            [split_cidr(ip["address"]) for ip in ips],
            [(*split_cidr(route["dst"]), packed(route["gw"]) if route.get("gw") else None) for route in routes],
        )
    except (NetlinkError, OSError) as error:
        raise CniError(FAILED, f"cannot set up {ifname} in the pod: {error}") from None
    finally:
        pod.close()


def masquerade_of(conf: NetConf, addresses: list[str]) -> Masquerade:
    """The network's rules: for the gateways' subnets, or where there is no gateway for those of the pod's addresses."""
    subnets = list(dict.fromkeys(_network(address) for address in (conf.gateways or addresses)))
    return Masquerade(conf.name, conf.bridge, subnets, conf.cluster_cidrs)


def _merge(
    conf: NetConf,
    interfaces: list[dict[str, Any]],
    ips: list[dict[str, Any]],
    routes: list[dict[str, Any]],
    answer: dict[str, Any],
) -> dict[str, Any]:
    """Our result, after what plugins before us in the chain have made."""
    before = conf.previous or {}
    there = list(before.get("interfaces") or ())
    return {
        "interfaces": [*there, *interfaces],
        "ips": [*(before.get("ips") or ()), *({**ip, "interface": ip["interface"] + len(there)} for ip in ips)],
        "routes": [*(before.get("routes") or ()), *routes],
        "dns": conf.dns or answer.get("dns") or before.get("dns") or {},
    }


def _check_pod(call: Call, conf: NetConf) -> None:
    previous = conf.previous or {}
    netns = _open_netns(call.netns)
    try:
        pod = Netlink(netns)
        try:
            link = pod.link(call.ifname)
            if link is None:
                raise CniError(NOT_AS_ATTACHED, f"{call.ifname} is not in the pod any more")
            if not link.is_up:
                raise CniError(NOT_AS_ATTACHED, f"{call.ifname} of the pod is down")
            ours = [
                place for place, one in enumerate(previous.get("interfaces") or ()) if one.get("name") == call.ifname
            ]
            mac = previous["interfaces"][ours[0]].get("mac") if ours else None
            if mac and mac.lower() != link.mac:
                raise CniError(NOT_AS_ATTACHED, f"{call.ifname} has the MAC {link.mac}, ADD has given it {mac}")
            wanted = [ip["address"] for ip in previous.get("ips") or () if ip.get("interface") in ours]
            there = pod.addresses(link.index)
            for address in wanted:
                if split_cidr(address) not in there:
                    raise CniError(NOT_AS_ATTACHED, f"{call.ifname} of the pod has lost its address {address}")
            _check_routes(pod, link, previous)
        finally:
            pod.close()
    finally:
        posix.close(netns)


def _check_routes(pod: Netlink, link: Link, previous: dict[str, Any]) -> None:
    routes = {family: pod.routes(family) for family in (AF_INET, AF_INET6)}
    for route in previous.get("routes") or ():
        gateway = route.get("gw")
        if not gateway:
            continue
        destination, length = split_cidr(route["dst"])
        family = AF_INET if len(destination) == 4 else AF_INET6
        if (destination if length else b"", length, packed(gateway), link.index) not in routes[family]:
            raise CniError(NOT_AS_ATTACHED, f"the pod has lost its route to {route['dst']} by {gateway}")


def _check_host(conf: NetConf, name: str) -> None:
    host = Netlink()
    try:
        link = host.link(name)
        if link is None or not link.is_up:
            raise CniError(
                NOT_AS_ATTACHED, f"the host's end of the pod's interface, {name}, is {'down' if link else 'gone'}"
            )
        bridge = host.link(conf.bridge)
        if bridge is None or not _is_as_wanted(conf, host, bridge):
            raise CniError(NOT_AS_ATTACHED, f"the bridge {conf.bridge} is not as configured; `evio repair` mends it")
    finally:
        host.close()
    if conf.ip_masq:
        ips = list((conf.previous or {}).get("ips") or ())
        if not masquerade_of(conf, [ip["address"] for ip in ips]).is_there():
            raise CniError(NOT_AS_ATTACHED, "the masquerade rules are gone; `evio repair` mends them")


def _check_port(conf: NetConf, name: str) -> None:
    ovsdb = Ovsdb(conf.ovsdb)
    try:
        port = ovsdb.port(conf.bridge, name)
    finally:
        ovsdb.close()
    if port is None or not port.bridged:
        raise CniError(NOT_AS_ATTACHED, f"{name} is not a port of the bridge {conf.bridge}; `evio repair` mends it")
    if port.ofport <= 0 or port.error:
        raise CniError(NOT_AS_ATTACHED, f"Open vSwitch cannot use the port {name}: {port.error or 'it has no number'}")
    ids = port.external_ids
    if not is_guarded(
        conf, name, port.ofport, ids.get(MAC_ID, ""), list(filter(None, ids.get(ADDRESS_ID, "").split(",")))
    ):
        raise CniError(NOT_AS_ATTACHED, f"the flows that guard the port {name} are gone; `evio repair` mends it")


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _network(cidr: str) -> str:
    """The network of an address: ``10.244.3.0/24`` of ``10.244.3.1/24``."""
    address, length = split_cidr(cidr)
    bits = len(address) * 8
    masked = int.from_bytes(address, "big") >> (bits - length) << (bits - length)
    family = AF_INET if bits == 32 else AF_INET6
    return f"{_socket.inet_ntop(family, masked.to_bytes(len(address), 'big'))}/{length}"
