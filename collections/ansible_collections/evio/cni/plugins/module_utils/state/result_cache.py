# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The results of whole chains of plugins, which libcni caches for the runtime: what plugins after ours have changed.

A plugin like ``tuning`` may give the pod's interface another MAC. What the pod itself changes is not in the result.
"""

from __future__ import annotations

import posix

from .. import paths
from ..fast_json import loads
from ..names import is_mac

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.attachment import Attachment

_LONGEST_FILE = 1 << 20
"""Bytes."""


def cached_mac(attachment: Attachment, netns: str) -> str | None:
    """Return the MAC that the pod's interface has by the result of its chain; None if that is not known."""
    result = _read(f"{paths.CNI_RESULTS}/{attachment.network}-{attachment.container_id}-{attachment.ifname}")
    interfaces = result.get("interfaces")
    for interface in interfaces if isinstance(interfaces, list) else ():
        if isinstance(interface, dict) and (interface.get("name"), interface.get("sandbox")) == (
            attachment.ifname,
            netns,
        ):
            mac = interface.get("mac")
            mac = mac.lower() if isinstance(mac, str) else None
            return mac if is_mac(mac) and not int(mac[:2], 16) & 1 else None
    return None


def _read(path: str) -> dict[str, Any]:
    """Return the result of a cache file (libcni, kind cniCacheV1); an empty object where there is none."""
    try:
        descriptor = posix.open(path, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC)
        with open(descriptor, "rb", 0) as file:
            text = file.read(_LONGEST_FILE)
        cached = loads(text.decode())
    except (OSError, ValueError):
        return {}
    result = cached.get("result") if isinstance(cached, dict) else None
    return result if isinstance(result, dict) else {}
