# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""STATUS: whether an ADD would work now, told in milliseconds from this node alone: runtimes ask every few seconds.

Checked are: the fence, the state directory, the OVSDB and vswitchd, the kernel's datapath, the IPAM plugin and its free
addresses, and what the overlay's agent reports. Without an agent, the node's firewalls are looked at here. etcd is not
asked.
"""

from __future__ import annotations

import posix

from .. import paths
from ..cni.netconf import HOST_LOCAL, NetConf
from ..cni.spec import LIMITED_CONNECTIVITY, NOT_AVAILABLE, Call, CniError
from ..cni.unsupported import refuse_unsupported
from ..deadline import STATUS_SECONDS, begin_call
from ..ipam.delegate import NO_ATTACHMENT, IpamCall, is_too_old
from ..ipam.host_local import Reservations
from ..kernel.links import LinkSocket
from ..kernel.netns import has_interface
from ..kernel.rtnetlink import Netlink
from ..overlay.state import overlay_fault
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.openflow import OpenFlow, OpenFlowError
from ..ovs.port_state import bridge_status, is_vswitchd_stopped
from ..ovs.ports import has_daemon
from ..state.directory import has_space, is_writable
from ..state.fence import refuse_if_fenced
from .repair_bridge import NO_MODULE, refuse_gateway_of_another_network
from .setup_bridge import is_as_wanted


def cmd_status(call: Call, conf: NetConf) -> None:
    """Serve STATUS in less than a second, or two where no agent looks at the firewalls. Raises as ``check_ready``."""
    begin_call(STATUS_SECONDS)
    check_ready(conf, call.path)


def check_ready(conf: NetConf, path: str) -> None:
    """Check that an ADD would work now, and that pods would reach other nodes. ``path`` is where IPAM plugins are.

    Raises FenceError or CniError, mostly NOT_AVAILABLE, if an ADD would fail, and CniError LIMITED_CONNECTIVITY if pods
    would not reach other nodes.
    """
    refuse_unsupported(conf)
    refuse_if_fenced(conf.state_dir)
    _check_directory("stateDir", conf.state_dir)
    ipam = _start_ipam(conf, path)
    try:
        _check_switch(conf)
        if conf.ipam_type == HOST_LOCAL:
            _check_directory("ipam.dataDir", Reservations(conf).directory)
            _check_addresses(conf)
    finally:
        failure = _ipam_failure(ipam)
    if failure is not None:
        raise failure
    _check_overlay(conf)


def _check_directory(key: str, directory: str) -> None:
    """Raise CniError unless an ADD can write a file in the directory."""
    if not is_writable(directory):
        raise CniError(NOT_AVAILABLE, f"{key}: nothing can be written in {directory}; mount it read-write")
    if not has_space(directory):
        raise CniError(NOT_AVAILABLE, f"{key}: the file system of {directory} is full; make room")


def _start_ipam(conf: NetConf, path: str) -> IpamCall:
    try:
        ipam = IpamCall("STATUS", conf.ipam_type, path, conf.raw, NO_ATTACHMENT)
    except CniError as error:
        raise CniError(NOT_AVAILABLE, error.msg) from None
    ipam.send_config()
    return ipam


def _ipam_failure(ipam: IpamCall) -> CniError | None:
    """Return the IPAM plugin's error; None if it has none, or is too old to know STATUS."""
    try:
        ipam.result()
    except CniError as error:
        return None if is_too_old(error) else error
    return None


def _check_switch(conf: NetConf) -> None:
    """Raise CniError unless vswitchd serves the OVSDB and answers, and the bridge is there or can be made."""
    try:
        with OvsdbClient(conf.ovsdb) as ovsdb:
            is_served = has_daemon(ovsdb)
            bridge = bridge_status(ovsdb, conf.bridge)
        if not is_served:
            raise CniError(
                NOT_AVAILABLE,
                f"nothing serves the OVSDB at {conf.ovsdb}: is ovs-vswitchd running? systemctl restart ovs-vswitchd "
                "starts it",
            )
        if bridge is None:
            _check_new_bridge(conf)
        elif bridge:
            raise CniError(NOT_AVAILABLE, f"Open vSwitch cannot use the bridge {conf.bridge}: {bridge}")
        else:
            with OpenFlow(conf.ovsdb, conf.bridge) as switch:
                switch.change([], 0, [])
    except (OvsdbError, OpenFlowError) as error:
        raise CniError(NOT_AVAILABLE, str(error)) from None
    with Netlink() as host:
        link = host.link(conf.bridge)
        if link is None or not is_as_wanted(conf, host, link):
            refuse_gateway_of_another_network(conf)


def _check_new_bridge(conf: NetConf) -> None:
    """Raise CniError if the first ADD could not make the bridge."""
    # Rare: once there is a pod, there is a bridge.
    from ..ovs.datapath import probe_datapath

    if conf.datapath_type == "system" and probe_datapath() != "system" and not has_interface(conf.bridge):
        raise CniError(NOT_AVAILABLE, NO_MODULE)
    with LinkSocket() as host:
        kind = host.kind(conf.bridge)
    # A bridge of vswitchd's datapath leaves a tap device behind when its database is lost, and takes it up again.
    if kind not in (None, "tun", "openvswitch"):
        raise CniError(
            NOT_AVAILABLE,
            f"bridge: a network interface {conf.bridge} is there that is no Open vSwitch bridge; "
            "remove it or take another name",
        )
    if is_vswitchd_stopped(conf.ovsdb):
        raise CniError(NOT_AVAILABLE, "ovs-vswitchd is stopped: continue or restart it")


def _check_addresses(conf: NetConf) -> None:
    reservations = Reservations(conf)
    if not reservations.exhausted():
        return
    # Rare: an ADD would reclaim the addresses of dead attachments first.
    from .reclaim import live_addresses

    taken = live_addresses(conf, reservations)
    full = reservations.exhausted(taken)
    if full:
        raise CniError(
            NOT_AVAILABLE,
            f"no address of {full} is left: {len(taken)} are reserved; remedy: evio gc",
        )


def _check_overlay(conf: NetConf) -> None:
    if posix.access(paths.OVERLAY_STATE, posix.F_OK):
        fault = overlay_fault(paths.OVERLAY_STATE)
    else:
        # Only where no agent looks at the firewalls: this starts programs, which get a time of their own.
        from ..firewall.pods import cut_off_by

        begin_call(STATUS_SECONDS)
        fault = cut_off_by(conf)
    if fault is not None:
        raise CniError(LIMITED_CONNECTIVITY, fault)
