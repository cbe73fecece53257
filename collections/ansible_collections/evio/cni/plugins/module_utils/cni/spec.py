# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The CNI specification's own terms: versions, error codes, and what the environment may say.

Pure, and without an import that a plugin's call would have to wait for. Sections are those of SPEC.md 1.1.0.
"""

from __future__ import annotations

from ..errors import EvioError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SUPPORTED_VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
# Section 5, "Error".
INCOMPATIBLE_VERSION = 1
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
UNDECODABLE = 6
INVALID_CONFIG = 7
TRY_AGAIN = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51
# From 100 on, the plugin's own.
FAILED = 100
NOT_AS_ATTACHED = 101
ROUTE_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")
"""What a route may say besides where it leads, since 1.1.0."""
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _LETTERS | frozenset("_.-")
_LONGEST_NAME = 200
"""With an interface's name and a suffix, still a file name."""
_LONGEST_IFNAME = 15
"""Bytes, in the kernel's count."""


class CniError(EvioError):
    """A failure as the runtime is told of it; ``details`` may be empty."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details

    def to_json(self, cni_version: str) -> dict[str, Any]:
        """The object that goes to standard output."""
        return {"cniVersion": cni_version, "code": self.code, "msg": self.msg, "details": self.details}


class Call:
    """What the runtime asks for: the environment of section 2, checked."""

    __slots__ = ("arguments", "command", "container_id", "ifname", "netns", "path")

    def __init__(
        self, command: str, container_id: str, netns: str, ifname: str, path: str, arguments: dict[str, str]
    ) -> None:
        self.command = command
        self.container_id = container_id
        self.netns = netns
        self.ifname = ifname
        self.path = path
        self.arguments = arguments


_REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "STATUS": ("CNI_PATH",),
    "GC": ("CNI_PATH",),
    "VERSION": (),
}
SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
"""The first version of the specification that has a verb."""


def parse_call(environment: Mapping[str, str]) -> Call:
    """The call, its names fit to become parts of paths. Raises CniError, with all that is missing in one message."""
    command = environment.get("CNI_COMMAND", "")
    if command not in _REQUIRED:
        raise CniError(INVALID_ENVIRONMENT, f"CNI_COMMAND is {command!r}, none of {', '.join(_REQUIRED)}")
    missing = [name for name in _REQUIRED[command] if not environment.get(name)]
    if missing:
        raise CniError(INVALID_ENVIRONMENT, f"{', '.join(missing)} not set in the environment, needed for {command}")
    container_id, ifname = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    if "CNI_CONTAINERID" in _REQUIRED[command]:
        check_attachment(container_id, ifname)
    return Call(
        command,
        container_id,
        environment.get("CNI_NETNS", ""),
        ifname,
        environment.get("CNI_PATH", ""),
        _parse_arguments(environment.get("CNI_ARGS", "")) if command == "ADD" else {},
    )


def check_attachment(container_id: str, ifname: str) -> None:
    """Raise CniError unless both are of the specification, and so fit to be a file's name."""
    if not is_name(container_id) or len(container_id) > _LONGEST_NAME:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID {container_id!r}: letters, digits, '_', '.', '-', a letter or digit first",
        )
    if not is_ifname(ifname):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME {ifname!r} is not the name of an interface")


def is_name(text: str) -> bool:
    """Section 1: a letter or digit, then those and '_', '.', '-'. Whatever the length."""
    return text[:1] in _LETTERS and _NAME.issuperset(text)


def is_ifname(name: str) -> bool:
    """Whether the kernel takes it for the name of an interface (its dev_valid_name)."""
    try:
        length = len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False
    fits = 0 < length <= _LONGEST_IFNAME and name not in (".", "..")
    return fits and not any(one in "/:" or one.isspace() for one in name)


def check_version(command: str, cni_version: str) -> None:
    """Raise CniError unless the version is supported and has the verb."""
    if cni_version not in SUPPORTED_VERSIONS:
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"cniVersion {cni_version!r} is not supported",
            f"supported are {', '.join(SUPPORTED_VERSIONS)}",
        )
    since = SINCE.get(command, "0")
    if SUPPORTED_VERSIONS.index(cni_version) < (SUPPORTED_VERSIONS.index(since) if since != "0" else 0):
        raise CniError(INCOMPATIBLE_VERSION, f"{command} came with CNI {since}, the configuration is of {cni_version}")


def check_network_name(name: str) -> None:
    """Section 1: the name of a network, which becomes a directory. Raises CniError."""
    if not is_name(name) or len(name) > _LONGEST_NAME:
        raise CniError(
            INVALID_CONFIG, f"name: {name!r} is not the name of a network; use letters, digits, '_', '.', '-'"
        )


def version_result(cni_version: str) -> dict[str, Any]:
    """Section 2, VERSION."""
    return {"cniVersion": cni_version, "supportedVersions": list(SUPPORTED_VERSIONS)}


def _parse_arguments(text: str) -> dict[str, str]:
    arguments = {}
    for pair in filter(None, text.split(";")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: {pair!r} is not a pair of key and value")
        arguments[key] = value
    return arguments
