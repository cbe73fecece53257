# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Switching off checksum offload on a pod's end of its veth (linux/ethtool.h), where vswitchd needs filled-in sums."""

from __future__ import annotations

import _socket
import array
import fcntl
from _struct import pack

from .netlink import inside

_SIOCETHTOOL = 0x8946
_ETHTOOL_STXCSUM = 0x17


def disable_tx_checksum(netns: int, ifname: str) -> None:
    """Let this interface of that namespace (a file descriptor) fill in its checksums. Raises OSError."""
    command = array.array("I", [_ETHTOOL_STXCSUM, 0])
    address, _length = command.buffer_info()
    control = inside(netns, lambda: _socket.socket(2, 2 | 0o2000000))
    try:
        fcntl.ioctl(control.fileno(), _SIOCETHTOOL, pack("16sP16x", ifname.encode(), address))
    finally:
        control.close()
