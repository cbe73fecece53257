# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ADD: IPAM's process first, which takes longest to come to life, and the rest of the code while it does."""

from __future__ import annotations

from .attachment_lock import AttachmentLock
from .ipam import prepare_ipam

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cni_protocol import Call
    from .netconf import NetConf


def add(call: Call, conf: NetConf) -> dict[str, Any]:
    """Attach the pod and return the result in its newest shape. Raises CniError with nothing left behind."""
    lock = AttachmentLock(conf, call)
    try:
        # Before IPAM is started, which inherits it.
        lock.open()
        ipam = prepare_ipam("ADD", call, conf)
        try:
            from .attempt import attempt

            return attempt(call, conf, lock, ipam)
        finally:
            ipam.end()
    finally:
        lock.close()
