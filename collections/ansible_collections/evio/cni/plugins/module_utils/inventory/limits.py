# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a variable may be, beyond its type, which the roles' argument_specs know: numbers and texts with limits.

Pure. Variables that have to fit to others, such as ``evio_mtu`` and ``evio_node_bits``, are the subject of ``cluster``.
"""

from __future__ import annotations

import re
from typing import Any

from ..cidr import is_cidr
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


def value_fault(name: str, value: Any) -> str | None:
    """Return why the variable cannot have this value, as one sentence; None if it can, or has no limits here."""
    if isinstance(value, (int, float)) and name in LIMITS:
        least, most = LIMITS[name]
        return None if least <= value <= most else f"{name}: {value:g} is not between {least} and {most}"
    if name in COMMAND_LINE_PATHS and value and not _COMMAND_LINE_PATH.fullmatch(str(value)):
        return f"{name}: {value!r} is not an absolute path without blanks, quotes, '%', '$', ';' and backslashes"
    if name == "evio_metrics_allowed_cidrs":
        wrong = [cidr for cidr in value if not is_cidr(cidr)]
        return f"{name}: {wrong[0]!r} is not a network in CIDR notation" if wrong else None
    return None
