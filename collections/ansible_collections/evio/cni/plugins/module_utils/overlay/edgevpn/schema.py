# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The settings that the controller of EdgeVPN.io 24.x reads: their keys, types and ranges, and the values it misreads.

Pure. The controller ignores keys that it does not know and checks no value, so a misspelt setting has no effect and a
wrong value ends a part of it. What several settings mean together is config's subject.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...errors import EvioError
from ...mtu import LEAST_OVERLAY_MTU, MOST_OVERLAY_MTU

EACH_OVERLAY = "*"
"""In a section of the schema, stands for the id of each overlay."""

OPENFLOW_PORTS = (6633, 6653)
"""TCP ports on which the OpenFlow controller of BoundedFlood listens, on all addresses of the node. No setting changes
that: the bridges have to be told the first port."""

LOG_DIRECTORY = "/var/log/evio"

_LOG_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "list": (list,),
    "port": (int, str),
}
"""Python's types of the values, by the words for them."""


class EdgeVpnConfigError(EvioError):
    """EdgeVPN.io does not know a setting or would misread it; the message names the setting and the consequence."""


@dataclass(frozen=True)
class Setting:
    """The values of one key."""

    type: str
    """One of the words in _TYPES."""
    least: int | None = None
    most: int | None = None
    """Range of an integer, or of the length of a list."""
    choices: tuple[Any, ...] = ()
    """The only values that work; empty for any value of the type."""
    pattern: str = ""
    """Regular expression that the whole string matches."""
    effect: str = ""
    """What EdgeVPN.io does with another value. The subject of the sentence is EdgeVPN.io."""
    is_nullable: bool = False
    is_refused: bool = False
    """Whether no value works; ``effect`` says why."""
    item: Section | Setting | None = None
    """What each item of a list is."""


Section: TypeAlias = "Mapping[str, Setting | Section]"


def _integer(least: int, most: int, effect: str = "") -> Setting:
    return Setting("integer", least, most, effect=effect)


def _refused(kind: str, effect: str) -> Setting:
    return Setting(kind, effect=effect, is_refused=True)


_BOOLEAN = Setting("boolean")
_NAME = Setting("string", pattern=r"\S+")
_LEVEL = Setting("string", choices=_LOG_LEVELS, effect="it would end at its start")
_SECONDS = _integer(1, 86400)
_ADDRESS_AND_PORT = Setting("string", pattern=r"\S+:[0-9]{1,5}")
_INTERFACES = Setting("list", item=_NAME)
_TAP_PREFIX = Setting("string", pattern=r"[A-Za-z0-9_-]{1,9}", effect="the names of tunnels would not tell nodes apart")


def _controller(**settings: Setting | Section) -> Section:
    """Return the section of one part of the controller, with the settings that all parts have."""
    return {
        "Enabled": Setting("boolean", choices=(True,), effect="it would end, because other parts need this one"),
        "TimerInterval": _integer(1, 3600),
        "LogLevel": _LEVEL,
        "StateTracingEnabled": _BOOLEAN,
        **settings,
    }


def _bridge(**settings: Setting | Section) -> Section:
    return {
        "NamePrefix": _NAME,
        "BridgeProvider": Setting("string", choices=("OVS",), effect="pods would have no Open vSwitch bridge"),
        "AutoDelete": Setting("boolean", choices=(False,), effect="each restart would disconnect every pod"),
        "MTU": _integer(LEAST_OVERLAY_MTU[4], MOST_OVERLAY_MTU),
        "IP4": _NAME,
        "PrefixLen": _integer(1, 32),
        "SDNControllerPort": Setting(
            "integer",
            choices=OPENFLOW_PORTS[:1],
            effect=f"its OpenFlow controller listens on {OPENFLOW_PORTS[0]} all the same, so the bridge would forward "
            "nothing",
        ),
        **settings,
    }


FLOODED_OVERLAY: Section = {
    "MaxOnDemandEdges": _integer(0, 1000),
    "DemandThreshold": Setting("string", pattern=r"[0-9]+[KMG]"),
    "FlowIdleTimeout": _integer(0, 65535),
    "FlowHardTimeout": _integer(0, 65535),
}
"""The settings of an overlay in the section of BoundedFlood. Timeouts are in seconds; the threshold is in bytes."""

SCHEMA: Section = {
    "Broker": {
        "NodeId": _NAME,
        "Overlays": Setting("list", least=1, item=Setting("string")),
        "LogLevel": _LEVEL,
        "BrokerLogLevel": _LEVEL,
        "TincanLogLevel": Setting("string"),
        "ConsoleLevel": Setting("string"),
        "Device": Setting("string"),
        "Directory": Setting(
            "string",
            pattern=rf"{LOG_DIRECTORY}(/[A-Za-z0-9._-]+)?/?",
            effect="it deletes every file of this directory at each start",
        ),
        "BrokerLogName": Setting("string", pattern=r"[A-Za-z0-9._-]+"),
        "TincanLogName": Setting("string", pattern=r"[A-Za-z0-9._-]+"),
        "KeepLogsOnStart": _BOOLEAN,
        "MaxFileSize": _integer(10_000, 1_000_000_000, "without a limit, logs fill the disk"),
        "MaxArchives": _integer(1, 1000, "without an archive, logs fill the disk"),
        "DebugCBTs": _BOOLEAN,
        "Model": _refused("string", "it would end at its start, because it looks for modules of that model"),
        "Controllers": _refused("string", "it would load other parts than those that this file is checked for"),
    },
    "Signal": _controller(
        NetCheckHostName=_NAME,
        JidResolutionTimeout=_SECONDS,
        PresenceInterval=_SECONDS,
        Overlays={
            EACH_OVERLAY: {
                "HostAddress": _NAME,
                "Port": Setting("port", 1, 65535),
                "Username": _NAME,
                "Password": Setting("string"),
                "AuthenticationMethod": Setting(
                    "string",
                    choices=("PASSWORD",),
                    effect="with x509 it has no account name, and with any other word its signalling ends",
                ),
                "CertDirectory": _refused("string", "it reads this with x509 only, which does not work"),
                "CertFile": _refused("string", "it reads this with x509 only, which does not work"),
                "KeyFile": _refused("string", "it reads this with x509 only, which does not work"),
                "CacheExpiry": _SECONDS,
            }
        },
    ),
    "TincanTunnel": _controller(Overlays={EACH_OVERLAY: {}}),
    "LinkManager": _controller(
        Stun=Setting("list", item=_ADDRESS_AND_PORT),
        Turn=Setting(
            "list", item={"Address": _ADDRESS_AND_PORT, "User": Setting("string"), "Password": Setting("string")}
        ),
        IgnoredNetInterfaces=_INTERFACES,
        Overlays={
            EACH_OVERLAY: {
                "IgnoredNetInterfaces": _INTERFACES,
                "TapNamePrefix": _TAP_PREFIX,
                "AllowRecursiveTunneling": _BOOLEAN,
            }
        },
    ),
    "GeneveTunnel": _controller(
        Overlays={
            EACH_OVERLAY: {
                "EndPointInterface": _NAME,
                "EndPointAddress": _NAME,
                "TapNamePrefix": _TAP_PREFIX,
            }
        },
    ),
    "Topology": _controller(
        TrimCheckInterval=_SECONDS,
        MaxConcurrentOps=_integer(1, 100),
        Overlays={
            EACH_OVERLAY: {
                "LocationId": _refused("integer", "nodes of one location would talk by Geneve, which is not encrypted"),
                "EncryptionRequired": _refused("boolean", "it reads this and does nothing with it"),
                "Role": _refused("string", "a leaf accepts no tunnels, and makes none but its StaticEdges"),
                "StaticEdges": Setting("list", least=1, item=Setting("string", pattern=r"[0-9a-f]{32}")),
                "ManualTopology": _BOOLEAN,
                "MinSuccessors": _integer(1, 1000),
                "MaxLongDistEdges": _integer(0, 1000),
                "MaxOnDemandEdges": _integer(0, 1000),
            }
        },
    ),
    "BridgeController": _controller(
        Overlays={
            EACH_OVERLAY: {
                "NetDevice": _bridge(SwitchProtocol=Setting("string", is_nullable=True), AppBridge=_bridge()),
            }
        },
        BoundedFlood={
            "TrafficAnalysisInterval": _SECONDS,
            "StateLoggingInterval": _SECONDS,
            "LinkCheckInterval": _SECONDS,
            "StateTracingEnabled": _BOOLEAN,
            "LogDir": Setting("string", pattern=rf"{LOG_DIRECTORY}/?"),
            "LogLevel": _LEVEL,
            "MaxBytes": _integer(10_000, 1_000_000_000, "without a limit, logs fill the disk"),
            "BackupCount": _integer(1, 1000, "without an archive, logs fill the disk"),
            "Overlays": {EACH_OVERLAY: FLOODED_OVERLAY},
        },
    ),
    "UsageReport": {
        **_controller(WebService=_NAME),
        "Enabled": Setting("boolean", choices=(False,), effect="it would report to its makers every hour"),
    },
}
"""Every setting that the controller reads, as the configuration file has them."""


def check_settings(config: Mapping[str, Any]) -> None:
    """Raise EdgeVpnConfigError for the first setting that EdgeVPN.io does not know or would misread."""
    _check_section("", config, SCHEMA)


def _check_section(place: str, found: Any, section: Section) -> None:
    if not isinstance(found, Mapping):
        raise EdgeVpnConfigError(f"{place}: {found!r} is not a dictionary")
    for key, value in found.items():
        where = f"{place}.{key}" if place else str(key)
        known = section.get(str(key), section.get(EACH_OVERLAY))
        if known is None:
            raise EdgeVpnConfigError(_unknown(where, str(key), place, section))
        _check(where, value, known)


def _check(where: str, value: Any, known: Setting | Section) -> None:
    if not isinstance(known, Setting):
        _check_section(where, value, known)
        return
    if known.is_refused:
        raise EdgeVpnConfigError(f"{where}: do not set it; with EdgeVPN.io 24, {known.effect}")
    if value is None and known.is_nullable:
        return
    # In Python a boolean is an integer as well.
    if not isinstance(value, _TYPES[known.type]) or (isinstance(value, bool) and known.type != "boolean"):
        raise EdgeVpnConfigError(f"{where}: {value!r} is not {_with_article(known.type)}")
    fault = _fault(value, known)
    if fault:
        raise EdgeVpnConfigError(f"{where}: {value!r} is not {fault}" + (f"; {known.effect}" if known.effect else ""))
    if isinstance(value, list) and known.item is not None:
        for index, item in enumerate(value):
            _check(f"{where}[{index}]", item, known.item)


def _fault(value: Any, known: Setting) -> str | None:
    """Return what the value would have to be; None if it can be used."""
    if known.choices and value not in known.choices:
        return " or ".join(repr(choice) for choice in known.choices)
    if known.pattern and not re.fullmatch(known.pattern, value):
        return f"of the form {known.pattern}"
    if known.type == "port":
        is_number = isinstance(value, int) or re.fullmatch(r"[0-9]{1,5}", value)
        return None if is_number and 1 <= int(value) <= 65535 else "a port from 1 to 65535"
    number = len(value) if known.type == "list" else value
    if known.least is not None and number < known.least:
        return f"{known.least} or more" if known.type != "list" else "a list with items"
    if known.most is not None and number > known.most:
        return f"{known.most} or less"
    return None


def _unknown(where: str, key: str, place: str, section: Section) -> str:
    """Return the message about a key that the schema does not have here."""
    elsewhere = sorted({parent for parent, name in _places(SCHEMA) if name == key and parent})
    if elsewhere:
        return f"{where}: EdgeVPN.io 24 reads {key} in {' and '.join(elsewhere)} alone"
    here = [name for name in section if name != EACH_OVERLAY]
    # A key of the same place counts as nearer than an equally similar key of another place.
    near = difflib.get_close_matches(key, here, 1, 0.6) or difflib.get_close_matches(
        key, [name for _parent, name in _places(SCHEMA)], 1, 0.6
    )
    if not near:
        hint = f"{place or 'the file'} has {', '.join(sorted(here)) or 'none'}"
    elif near[0] in here:
        hint = f"the nearest is {near[0]}"
    else:
        places = sorted({parent for parent, name in _places(SCHEMA) if name == near[0]})
        hint = f"the nearest is {near[0]}, in {' and '.join(places)}"
    return f"{where}: EdgeVPN.io 24 reads no such setting; {hint}"


def _places(section: Section, parent: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and the name of each key of the schema."""
    for name, known in section.items():
        if name != EACH_OVERLAY:
            yield parent, name
        if not isinstance(known, Setting):
            yield from _places(known, f"{parent}.{name}" if parent else name)


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind == "integer" else f"a {kind}"
