# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The generation of this network namespace's nftables rules: a number that every change of them raises."""

from __future__ import annotations

from struct import pack, unpack

from .netlink import NETLINK_NETFILTER, NetlinkError, NetlinkSocket, parse_attributes

_NFT_MSG_GETGEN = (10 << 8) | 16
"""NFNL_SUBSYS_NFTABLES of linux/netfilter/nfnetlink.h, and the message of linux/netfilter/nf_tables.h."""

_NFTA_GEN_ID = 1


class RulesetGeneration:
    """The generation, asked by a socket that stays open: the question costs one netlink message."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._socket: NetlinkSocket | None = None

    def read(self) -> int | None:
        """Return the generation of all rules; None if the kernel has no nftables or does not answer."""
        try:
            if self._socket is None:
                self._socket = NetlinkSocket(NETLINK_NETFILTER)
            answer = self._socket.ask("generation of the rules", _NFT_MSG_GETGEN, pack("=BBH", 0, 0, 0))
        except NetlinkError:
            self.close()
            return None
        value = parse_attributes(answer, 4).get(_NFTA_GEN_ID)
        return None if value is None else int(unpack(">I", value)[0])

    def close(self) -> None:
        """Close the socket; the next question opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
