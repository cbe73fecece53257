# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Transmit checksum offload of a pod's end of its veth pair: switch it off, and read whether it is on.

By ethtool's ioctls (linux/ethtool.h), which any socket in the pod's namespace can send. ethtool's netlink family would
need a socket of its own and a look-up of the family's number, and takes twenty times as long.
"""

from __future__ import annotations

from _struct import pack, pack_into, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netlink import NetlinkSocket

_SIOCETHTOOL = 0x8946
"""linux/sockios.h"""

_ETHTOOL_GTXCSUM, _ETHTOOL_STXCSUM = 0x16, 0x17


def disable_tx_checksum(pod: NetlinkSocket, ifname: str) -> None:
    """Let the device fill in the checksums of TCP, UDP and SCTP before it sends. Raises NetlinkError.

    The kernel switches segmentation offload off with it, which depends on checksum offload.
    """
    _tx_checksum(pod, ifname, _ETHTOOL_STXCSUM)


def has_tx_checksum(pod: NetlinkSocket, ifname: str) -> bool:
    """Return whether the device offloads checksums, so that its frames carry none. Raises NetlinkError."""
    return _tx_checksum(pod, ifname, _ETHTOOL_GTXCSUM) != 0


def _tx_checksum(pod: NetlinkSocket, ifname: str, command: int) -> int:
    # Only on userspace bridges without TSO. Before Python 3.12 setns has imported it already; ctypes would take 2 ms.
    import _ctypes

    class EthtoolValue(_ctypes._SimpleCData):  # type: ignore[type-arg]
        """struct ethtool_value: the command, then a number that the kernel reads or writes. It has a fixed address."""

        _type_ = "P"  # The simple type that is created fastest.

    value = EthtoolValue()
    _ctypes.resize(value, 8)
    pack_into("II", value, 0, command, 0)
    # struct ifreq: the name, then a pointer to the struct ethtool_value.
    request = pack("16sP16x", ifname.encode("utf-8", "surrogateescape"), _ctypes.addressof(value))
    pod.ioctl("checksum offload", _SIOCETHTOOL, request)
    answer: int = unpack_from("II", value)[1]
    return answer
