# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The terms of the CNI specification: versions, error codes, and the parameters in the environment.

Pure, and without imports that a call would have to wait for. Sections are those of SPEC.md 1.1.0.
"""

from __future__ import annotations

from ..errors import EvioError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SUPPORTED_VERSIONS = ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""In ascending order."""

# Error codes of section 5, "Error".
INCOMPATIBLE_VERSION = 1
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
UNDECODABLE = 6
INVALID_CONFIG = 7
TRY_AGAIN = 11
NOT_AVAILABLE = 50
LIMITED_CONNECTIVITY = 51
# Error codes from 100 on are the plugin's own.
FAILED = 100
NOT_AS_ATTACHED = 101

ROUTE_NUMBERS = ("mtu", "advmss", "priority", "table", "scope")
"""The numbers that a route can have since version 1.1.0."""

SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
"""The version of the specification that introduced a command."""

_REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "STATUS": ("CNI_PATH",),
    "GC": ("CNI_PATH",),
    "VERSION": (),
}
"""The parameters that a command must have (section 2)."""

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _LETTERS | frozenset("_.-")

_LONGEST_NAME = 200
"""Characters. Together with an interface's name and a suffix, it still fits into a file name."""

_LONGEST_IFNAME = 15
"""Bytes; the kernel's IFNAMSIZ without the terminating zero (linux/if.h)."""


class CniError(EvioError):
    """A failure that is reported to the runtime; ``details`` may be empty."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details

    def to_json(self, cni_version: str) -> dict[str, Any]:
        """Return the error object for standard output (section 5, "Error")."""
        return {"cniVersion": cni_version, "code": self.code, "msg": self.msg, "details": self.details}


class Call:
    """A call of the runtime: the checked parameters of section 2."""

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


def parse_call(environment: Mapping[str, str]) -> Call:
    """Return the call. Raises CniError, which names all missing parameters, or a name that cannot be part of a path."""
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
    """Raise CniError unless both names are valid (section 2), which also makes them valid parts of a file name."""
    if not is_name(container_id) or len(container_id) > _LONGEST_NAME:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID {container_id!r}: letters, digits, '_', '.', '-', a letter or digit first",
        )
    if not is_ifname(ifname):
        raise CniError(INVALID_ENVIRONMENT, f"CNI_IFNAME {ifname!r} is not the name of an interface")


def is_name(text: str) -> bool:
    """Return whether this is a letter or digit, then letters, digits, '_', '.', '-' (section 1); of any length."""
    return text[:1] in _LETTERS and _NAME.issuperset(text)


def is_ifname(name: str) -> bool:
    """Return whether the kernel accepts this as the name of an interface (dev_valid_name in net/core/dev.c)."""
    try:
        length = len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False
    fits = 0 < length <= _LONGEST_IFNAME and name not in (".", "..")
    return fits and not any(character in "/:" or character.isspace() for character in name)


def check_version(command: str, cni_version: str) -> None:
    """Raise CniError unless this version of the specification is supported and has the command."""
    if cni_version not in SUPPORTED_VERSIONS:
        raise CniError(
            INCOMPATIBLE_VERSION,
            f"cniVersion {cni_version!r} is not supported",
            f"supported are {', '.join(SUPPORTED_VERSIONS)}",
        )
    since = SINCE.get(command, SUPPORTED_VERSIONS[0])
    if SUPPORTED_VERSIONS.index(cni_version) < SUPPORTED_VERSIONS.index(since):
        raise CniError(INCOMPATIBLE_VERSION, f"{command} came with CNI {since}, the configuration is of {cni_version}")


def check_network_name(name: str) -> None:
    """Raise CniError unless this is a valid name of a network (section 1); it becomes the name of a directory."""
    if not is_name(name) or len(name) > _LONGEST_NAME:
        raise CniError(
            INVALID_CONFIG, f"name: {name!r} is not the name of a network; use letters, digits, '_', '.', '-'"
        )


def version_result(cni_version: str) -> dict[str, Any]:
    """Return the result of the command VERSION (section 2)."""
    return {"cniVersion": cni_version, "supportedVersions": list(SUPPORTED_VERSIONS)}


def _parse_arguments(text: str) -> dict[str, str]:
    arguments = {}
    for pair in filter(None, text.split(";")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise CniError(INVALID_ENVIRONMENT, f"CNI_ARGS: {pair!r} is not a pair of key and value")
        arguments[key] = value
    return arguments
