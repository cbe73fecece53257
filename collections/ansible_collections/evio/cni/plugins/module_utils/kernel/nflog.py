# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packets' headers from nftables' ``log group`` statement, by nfnetlink_log (linux/netfilter/nfnetlink_log.h).

The kernel copies the headers to a socket; which packets are logged is decided by the rules.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from struct import pack, unpack_from

from .netlink import NETLINK_NETFILTER, NLM_F_ACK, NLM_F_REQUEST, NetlinkError, attribute, parse_attributes

HEADER_BYTES = 40
"""What is copied of each packet: the IPv6 header, or the IPv4 header and more."""

_SUBSYSTEM = 4 << 8
"""NFNL_SUBSYS_ULOG of linux/netfilter/nfnetlink.h."""

_MESSAGE_PACKET, _MESSAGE_CONFIG = 0, 1

_CONFIG_COMMAND, _CONFIG_MODE, _CONFIG_QUEUE_THRESHOLD = 1, 2, 5

_COMMAND_BIND, _COPY_PACKET = 1, 2

_ATTRIBUTE_PAYLOAD = 9

_NLMSG_ERROR = 2

_TIMEOUT_SECONDS = 5.0


class PacketLog:
    """The log group of a number in the network namespace of the process that opens it."""

    def __init__(self, group: int) -> None:
        """Bind the group. Raises NetlinkError: EPERM if another program has it, EINVAL without nfnetlink_log."""
        self._what = f"packets of nftables' log group {group}"
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        try:
            self._socket.settimeout(_TIMEOUT_SECONDS)
            self._socket.bind((0, 0))
            mode = pack(">IBB", HEADER_BYTES, _COPY_PACKET, 0)
            self._configure(group, attribute(_CONFIG_COMMAND, pack("B", _COMMAND_BIND)))
            self._configure(group, attribute(_CONFIG_MODE, mode))
            # Without it the kernel collects packets for up to a second.
            self._configure(group, attribute(_CONFIG_QUEUE_THRESHOLD, pack(">I", 1)))
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise NetlinkError(self._what, error.errno or errno.ETIMEDOUT) from None
        except NetlinkError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the socket's file descriptor, for a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Release the group."""
        self._socket.close()

    def destinations(self, most: int) -> Iterator[str]:
        """Yield the destination addresses of the packets that were logged, from at most so many reads."""
        for _number in range(most):
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                # ENOBUFS: some packets were dropped. Whoever goes on sending is logged again.
                continue
            yield from _destinations(data)

    def _configure(self, group: int, body: bytes) -> None:
        message = pack("=BBH", 0, 0, socket.htons(group)) + body
        header = pack("=IHHII", 16 + len(message), _SUBSYSTEM | _MESSAGE_CONFIG, NLM_F_REQUEST | NLM_F_ACK, 1, 0)
        self._socket.send(header + message)
        while True:
            # The answer may come after packets that are logged already.
            for kind, content in _messages(self._socket.recv(65536)):
                if kind == _NLMSG_ERROR:
                    code = -unpack_from("=i", content)[0]
                    if code:
                        raise NetlinkError(self._what, code)
                    return


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 16 <= len(data):
        length, kind = unpack_from("=IH", data, at)
        yield kind, data[at + 16 : at + length]
        at += max(16, (length + 3) & ~3)


def _destinations(data: bytes) -> Iterator[str]:
    for kind, content in _messages(data):
        if kind != _SUBSYSTEM | _MESSAGE_PACKET:
            continue
        packet = parse_attributes(content, 4).get(_ATTRIBUTE_PAYLOAD, b"")
        if len(packet) >= 20 and packet[0] >> 4 == 4:
            yield socket.inet_ntop(socket.AF_INET, packet[16:20])
        elif len(packet) >= 40 and packet[0] >> 4 == 6:
            yield socket.inet_ntop(socket.AF_INET6, packet[24:40])
