# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""STATUS: whether an ADD would work now, told in milliseconds from this node alone: runtimes ask every few seconds.

Checked are: the fence, the state directory, the OVSDB and vswitchd, the kernel's datapath, the IPAM plugin and its free
addresses, and what the overlay's agent reports. etcd is not asked.
"""

from __future__ import annotations

from .. import paths
from ..cni.spec import LIMITED_CONNECTIVITY, NOT_AVAILABLE, Call, CniError
from ..cni.unsupported import refuse_unsupported
from ..ipam.delegate import NO_ATTACHMENT, IpamCall, is_too_old
from ..ipam.host_local import HOST_LOCAL, Reservations
from ..kernel.netns import has_interface
from ..overlay.wireguard.state import overlay_fault
from ..ovs.jsonrpc import OvsdbClient, OvsdbError
from ..ovs.ports import has_daemon
from ..state.directory import is_writable
from ..state.fence import refuse_if_fenced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cni.netconf import NetConf


def cmd_status(call: Call, conf: NetConf) -> None:
    """Serve STATUS. Raises FenceError or CniError NOT_AVAILABLE if an ADD would fail, and CniError LIMITED_CONNECTIVITY
    if pods would not reach other nodes.
    """
    refuse_unsupported(conf)
    refuse_if_fenced(conf.state_dir)
    if not is_writable(conf.state_dir):
        raise CniError(NOT_AVAILABLE, f"stateDir: nothing can be written in {conf.state_dir}")
    ipam = _start_ipam(call, conf)
    try:
        _check_switch(conf)
        if conf.ipam_type == HOST_LOCAL:
            _check_addresses(conf)
    finally:
        failure = _ipam_failure(ipam)
    if failure is not None:
        raise failure
    _check_overlay()


def _start_ipam(call: Call, conf: NetConf) -> IpamCall:
    try:
        ipam = IpamCall("STATUS", conf.ipam_type, call.path, conf.raw, NO_ATTACHMENT)
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
    try:
        with OvsdbClient(conf.ovsdb, timeout=2) as ovsdb:
            is_served = has_daemon(ovsdb)
    except OvsdbError as error:
        raise CniError(NOT_AVAILABLE, str(error)) from None
    if not is_served:
        raise CniError(NOT_AVAILABLE, f"nothing serves the OVSDB at {conf.ovsdb}: is ovs-vswitchd running?")
    if conf.datapath_type == "system" and not has_interface(conf.bridge):
        # Rare: the first ADD would make the bridge.
        from ..ovs.datapath import probe_datapath
        from .setup_bridge import NO_MODULE

        if probe_datapath() != "system":
            raise CniError(NOT_AVAILABLE, NO_MODULE)


def _check_addresses(conf: NetConf) -> None:
    reservations = Reservations(conf)
    if not reservations.exhausted():
        return
    # Rare: an ADD would reclaim the addresses of dead attachments first.
    from .reclaim import live_addresses

    taken = live_addresses(conf, reservations)
    full = reservations.exhausted(taken)
    if full:
        raise CniError(NOT_AVAILABLE, f"no address of {full} is left: {len(taken)} are reserved")


def _check_overlay() -> None:
    fault = overlay_fault(paths.OVERLAY_STATE)
    if fault is not None:
        raise CniError(LIMITED_CONNECTIVITY, fault)
