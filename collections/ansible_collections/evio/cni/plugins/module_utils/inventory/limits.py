# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a variable may be, beyond its type, which the roles' argument_specs know: numbers and texts with limits.

Pure. Variables that have to fit to others, such as ``evio_mtu`` and ``evio_node_bits``, are the subject of ``cluster``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from ..cidr import is_cidr
from ..debian_packages import package_name
from ..pki import MOST_RENEW_DAYS

_PORT = (1, 65535)
_SECONDS = (1, 86400)

LIMITS: dict[str, tuple[int, int]] = {
    "evio_api_server_timeout": _SECONDS,
    "evio_certificate_renew_days": (1, MOST_RENEW_DAYS),
    "evio_drain_timeout": _SECONDS,
    "evio_health_timeout": _SECONDS,
    "evio_etcd_start_timeout": _SECONDS,
    # 0: nothing listens.
    "evio_metrics_port": (0, 65535),
    "evio_node_ready_timeout": _SECONDS,
    "evio_overlay_port": _PORT,
    "evio_overlay_timeout": _SECONDS,
    "evio_ovs_timeout": _SECONDS,
    "evio_turn_port": _PORT,
    "evio_xmpp_port": _PORT,
}
"""The lowest and the highest value of each number."""

COMMAND_LINE_PATHS = (
    "evio_cni_bin_dir",
    "evio_cni_conf_dir",
    "evio_cni_state_dir",
    "evio_metrics_textfile_directory",
)
"""Directories that are words of command lines in units of systemd."""

_COMMAND_LINE_PATH = re.compile(r"/[^\s%$\"'\\;]*")
"""A path that systemd takes as it is (systemd.service(5), "Command lines")."""

KEEP_WORDS = ("claims", "containerd", "packages")
"""What ``evio_teardown_keep`` names besides packages; the role teardown reads them."""

_NOTATIONS = {
    # Ansible takes all nodes at once for 0 and less.
    "evio_upgrade_serial": (
        re.compile(r"[1-9][0-9]{0,5}|(100|[1-9][0-9]?)%"),
        "is neither a number of nodes, from 1 on, nor a percentage of them, from 1% to 100%",
    ),
    # A token of 0 never expires.
    "evio_kubeadm_token_ttl": (
        re.compile(r"(?=.*[1-9])([0-9]+(\.[0-9]+)?[hms])+"),
        "is no time above 0 in Go's notation, such as 15m or 1h30m",
    ),
}
"""What texts with numbers in them must match, and what is said of others."""

_PORT_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")

_DICTIONARY_FORMS = {
    "evio_rename": "give former=new, with a comma between several, as in -e evio_rename=node3=shop3",
}


def value_fault(name: str, value: Any) -> str | None:
    """Return why the variable cannot have this value, as one sentence; None if it can, or has no limits here."""
    if isinstance(value, (int, float)) and name in LIMITS:
        least, most = LIMITS[name]
        return None if least <= value <= most else f"{name}: {value:g} is not between {least} and {most}"
    if name in _NOTATIONS:
        pattern, fault = _NOTATIONS[name]
        return None if pattern.fullmatch(str(value)) else f"{name}: {value!r} {fault}"
    if name == "evio_turn_relay_ports":
        ports = _PORT_RANGE.fullmatch(str(value))
        fits = ports and 1 <= int(ports[1]) <= int(ports[2]) <= 65535
        return None if fits else f"{name}: {value!r} is not the first and the last port, such as 49152-65535"
    if name in COMMAND_LINE_PATHS and value and not _COMMAND_LINE_PATH.fullmatch(str(value)):
        return f"{name}: {value!r} is not an absolute path without blanks, quotes, '%', '$', ';' and backslashes"
    if name == "evio_metrics_allowed_cidrs":
        wrong = [cidr for cidr in value if not is_cidr(cidr)]
        return f"{name}: {wrong[0]!r} is not a network in CIDR notation" if wrong else None
    return None


def dictionary_fault(name: str, value: Any) -> str | None:
    """Return why the text of a variable is no dictionary, as one sentence; None if it may be one, or is no text.

    The text is not shown, because it may be a password.
    """
    if not isinstance(value, str) or "=" in value or value.lstrip().startswith("{"):
        return None
    form = _DICTIONARY_FORMS.get(name, "give key=value, with a comma between several, or JSON")
    return f"{name}: the text is no dictionary; {form}"


def keep_fault(kept: Collection[str], packages: Collection[str]) -> str | None:
    """Return why ``evio_teardown_keep`` cannot have these entries, as one sentence; None if it can.

    ``packages`` are names as apt takes them, of the packages that the roles install. What no entry names is removed, so
    an entry that names nothing is no harmless mistake.
    """
    names = sorted({package_name(package) for package in packages})
    wrong = next((entry for entry in kept if entry not in KEEP_WORDS and entry not in names), None)
    if wrong is None:
        return None
    near = get_close_matches(wrong.lower(), KEEP_WORDS, 1) or get_close_matches(wrong.lower(), names, 1)
    return (
        f"evio_teardown_keep: {wrong!r} names nothing that could stay{f'; is it {near[0]}?' if near else '.'} It can "
        "have claims (etcd with its data and certificates), containerd (with containers and images), packages (all of "
        f"them), and packages that the roles install: {', '.join(names)}. A package that another one has brought stays "
        "with that one"
    )
