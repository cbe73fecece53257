# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys of other plugins' configurations that isolate or shape pods, and that this plugin does not carry out.

ADD and STATUS refuse them: a network that promises what it does not keep is worse than no network. Checked are the keys
of the plugin ``bridge`` (containernetworking/plugins 1.7) and of ovs-cni 0.38. docs/configuration.md has the table.
"""

from __future__ import annotations

from .spec import INVALID_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netconf import NetConf

_REFUSED = {
    "hairpinMode": "Open vSwitch sends no frame back through its own port; Services and hostPorts need no hairpin here"
    "; leave it out",
    "promiscMode": "the bridge's device is not set promiscuous; leave it out",
    "enabledad": "addresses are set without duplicate address detection, because IPAM gives each to one pod; "
    "leave it out",
    "disableContainerInterface": "the pod's interface is set up, with IPAM's addresses; leave it out",
    "deviceID": "hardware offload and virtual functions are not supported, pods get veth pairs; leave it out",
    "ofport_request": "Open vSwitch chooses OpenFlow port numbers; leave it out",
    "interface_type": "pods get veth pairs; leave it out",
    "configuration_path": "no further file is read; put its keys into the configuration",
    "socket_file": "the key's name is ovsdb here, as in unix:/run/openvswitch/db.sock",
    "mirrors": "ports are not mirrored; leave it out",
    "bandwidth": "add the plugin bandwidth to the conflist, after evio",
}
"""Why each is refused. A key that is false, 0, empty or null asks for nothing."""

_RUNTIME_CONFIG = {
    "bandwidth": "vswitchd's datapath, netdev, enforces no limit; take the pod's annotations kubernetes.io/*-bandwidth "
    "away, or use the kernel's datapath with the plugin bandwidth",
    "portMappings": "the capability belongs to the plugin portmap, after evio in the conflist",
    "deviceID": _REFUSED["deviceID"],
    "infinibandGUID": "pods get veth pairs",
}

_CARRIED_OUT = (
    "bridge",
    "clusterCIDRs",
    "datapathType",
    "forceAddress",
    "gateway",
    "ipMasq",
    "ipam",
    "isDefaultGateway",
    "isGateway",
    "macspoofchk",
    "mtu",
    "ovsdb",
    "portIsolation",
    "portSecurity",
    "preserveDefaultVlan",
    "stateDir",
    "trunk",
    "vlan",
    "vlanTrunk",
)

_SPELLING = {key.lower(): key for key in (*_REFUSED, *_CARRIED_OUT)}


def refuse_unsupported(conf: NetConf) -> None:
    """Raise CniError INVALID_CONFIG for the first key that asks for what an ADD would not do."""
    raw = conf.raw
    for key, value in raw.items():
        if value and key in _REFUSED:
            raise _refusal(key, value, _REFUSED[key])
        # Go's plugins read their keys in any case: they would obey "Vlan".
        known = _SPELLING.get(key.lower(), key)
        if known != key:
            raise _refusal(key, value, f"the key is spelt {known}")
    for key, value in (raw.get("runtimeConfig") or {}).items():
        asks = any(value.values()) if isinstance(value, dict) else value
        if asks and key in _RUNTIME_CONFIG:
            raise _refusal(f"runtimeConfig.{key}", value, _RUNTIME_CONFIG[key])
    _refuse_contradictions(conf)


def _refuse_contradictions(conf: NetConf) -> None:
    raw = conf.raw
    for key in ("macspoofchk", "preserveDefaultVlan", "forceAddress"):
        if raw.get(key) is not None and not isinstance(raw[key], bool):
            raise CniError(INVALID_CONFIG, f"{key}: {raw[key]!r} is neither true nor false")
    if raw.get("macspoofchk") and not conf.port_security:
        raise _refusal("macspoofchk", True, "portSecurity is false, and it is what checks the pods' MACs")
    if conf.vlan is not None and conf.trunks:
        raise _refusal("vlan", conf.vlan, "the configuration has a trunk too; a port is in one VLAN or carries several")
    if conf.vlan is not None and conf.gateways:
        reason = f"pods in a VLAN do not reach the bridge's own address {conf.gateways[0]}"
        raise _refusal("vlan", conf.vlan, f"{reason}; leave out isGateway, isDefaultGateway and gateway")
    if conf.vlan is not None and raw.get("preserveDefaultVlan"):
        raise _refusal("preserveDefaultVlan", True, f"the pods' ports are in VLAN {conf.vlan} alone")
    if conf.trunks and conf.port_security:
        key = "vlanTrunk" if raw.get("vlanTrunk") else "trunk"
        raise _refusal(key, raw[key], "port security lets pods send no tagged frames; set portSecurity to false")


def _refusal(key: str, value: object, reason: str) -> CniError:
    return CniError(INVALID_CONFIG, f"{key}: {value!r} is not supported: {reason}")
