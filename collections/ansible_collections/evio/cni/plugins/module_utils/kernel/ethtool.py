# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checksum offload on a pod's end of its veth: switched off where vswitchd needs filled-in checksums, and looked at.

By ethtool's ioctls (linux/ethtool.h), which any socket of the pod's namespace takes: its netlink family would want one
of its own, to be looked up by its name first, and takes twenty times as long.
"""

from __future__ import annotations

from _struct import pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netlink import NetlinkSocket

_SIOCETHTOOL = 0x8946
_GET_TX_CHECKSUM, _SET_TX_CHECKSUM = 0x16, 0x17
_BYTES_OFFSET = bytes.__basicsize__ - 1
"""Where CPython has the bytes behind the address of their object (PyBytesObject), which is its id. The documented way,
array.buffer_info, would import collections.abc, for which a pod would wait a millisecond.
"""


def disable_tx_checksum(pod: NetlinkSocket, ifname: str) -> None:
    """Let the device fill in its checksums, of TCP, UDP and SCTP; segmentation offload, which builds on the kernel's
    leaving them out, goes with it. Raises NetlinkError.
    """
    _tx_checksum(pod, ifname, _SET_TX_CHECKSUM)


def leaves_out_checksums(pod: NetlinkSocket, ifname: str) -> bool:
    """Whether the device leaves them to whoever sends its frames on. Raises NetlinkError."""
    return _tx_checksum(pod, ifname, _GET_TX_CHECKSUM) != 0


def _tx_checksum(pod: NetlinkSocket, ifname: str, command: int) -> int:
    value = pack("II", command, 0)
    # struct ifreq, whose data is the address of a struct ethtool_value, into which the kernel answers.
    request = pack("16sP16x", ifname.encode("utf-8", "surrogateescape"), id(value) + _BYTES_OFFSET)
    pod.control("checksum offload", _SIOCETHTOOL, request)
    answer: int = unpack("II", value)[1]
    return answer
