#!/usr/bin/python3
"""Makes a router forget its connections and translations: run as a program inside the router's network namespace.

One ctnetlink message, so that the machine needs no conntrack tool.
"""

from __future__ import annotations

import os
import socket
import struct

_NETLINK_NETFILTER = 12
_DELETE = (1 << 8) | 2
"""NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE; without a tuple: all entries (linux/netfilter/nfnetlink_conntrack.h)."""
_REQUEST_ACK = 0x1 | 0x4
_HEADER = struct.Struct("=IHHII")


def forget_all() -> None:
    """Delete every entry of this namespace's conntrack table, of IPv4 and IPv6; deadline 5 s. Raises OSError."""
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
