# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checksum offload on a pod's end of its veth: switched off where vswitchd needs filled-in checksums, and looked at.

By ethtool's generic netlink family (linux/ethtool_netlink.h, since Linux 5.6) and not by its ioctl, which takes a
pointer that Python has no quick way to make.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from .netlink import NETLINK_GENERIC, NetlinkSocket, attribute, attributes, nested, text

_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY, _CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
_FEATURES_GET, _FEATURES_SET, _FEATURES_HEADER, _FEATURES_WANTED, _FEATURES_ACTIVE = 11, 12, 1, 3, 4
_HEADER_DEV_INDEX, _HEADER_FLAGS, _FLAG_OMIT_REPLY = 1, 3, 2
_BITSET_BITS, _BITSET_BIT, _BIT_NAME = 3, 1, 2
_TX_CHECKSUM = "tx-checksum-ip-generic"
"""The one that veths have; segmentation offload, which builds on it, goes with it."""


def disable_tx_checksum(netns: int, index: int) -> None:
    """Let the device of this index, in the namespace of the descriptor, fill in its checksums. Raises NetlinkError."""
    # A bit that is named without a value is switched off.
    bit = nested(_BITSET_BIT, text(_BIT_NAME, _TX_CHECKSUM))
    _ask(netns, index, _FEATURES_SET, _FLAG_OMIT_REPLY, nested(_FEATURES_WANTED, nested(_BITSET_BITS, bit)))


def leaves_out_checksums(netns: int, index: int) -> bool:
    """Whether the device leaves them to whoever sends its frames on. Raises NetlinkError."""
    [features] = _ask(netns, index, _FEATURES_GET)
    # A list of the bits that are set, by their names.
    return _TX_CHECKSUM.encode() + b"\0" in attributes(features, 4)[_FEATURES_ACTIVE]


def _ask(netns: int, index: int, command: int, flags: int = 0, body: bytes = b"") -> list[bytes]:
    with NetlinkSocket(NETLINK_GENERIC, netns) as ethtool:
        query = pack("=BBH", _CTRL_CMD_GETFAMILY, 1, 0) + text(_CTRL_ATTR_FAMILY_NAME, "ethtool")
        [answer] = ethtool.talk("ethtool", [(_GENL_ID_CTRL, 0, query)])
        [family] = unpack_from("=H", attributes(answer, 4)[_CTRL_ATTR_FAMILY_ID])
        device = attribute(_HEADER_DEV_INDEX, pack("=I", index)) + attribute(_HEADER_FLAGS, pack("=I", flags))
        request = pack("=BBH", command, 1, 0) + nested(_FEATURES_HEADER, device) + body
        return ethtool.talk("checksum offload", [(family, 0, request)])
