#!/usr/bin/python3
"""Delete all conntrack entries, which makes a router forget its translations; run inside the router's namespace.

It sends one ctnetlink message, so that the machine needs no conntrack tool.
"""

from __future__ import annotations

import os
import socket
import struct

_NETLINK_NETFILTER = 12
_DELETE = (1 << 8) | 2
"""NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE: all entries, as no tuple follows (nfnetlink_conntrack.h)."""
_REQUEST_ACK = 0x1 | 0x4
_HEADER = struct.Struct("=IHHII")


def forget_all() -> None:
    """Delete every IPv4 and IPv6 entry of this namespace's conntrack table; deadline 5 s. Raises OSError."""
    body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netfilter:
        netfilter.settimeout(5.0)
        netfilter.send(_HEADER.pack(_HEADER.size + len(body), _DELETE, _REQUEST_ACK, 1, 0) + body)
        answer = netfilter.recv(4096)
    (error,) = struct.unpack_from("=i", answer, _HEADER.size)
    if error:
        raise OSError(-error, os.strerror(-error))


if __name__ == "__main__":
    forget_all()
