# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Checks of a host that cost nothing: bootstrap.yml makes them while it reads the host's identity, preflight.yml too.

Each takes microseconds, and this file imports nothing that the identity does not need.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"
"""States of a row: nothing to do, it works but not well, it will not work."""

CLOCK_WARNING, CLOCK_ERROR = 10.0, 300.0
"""Seconds between the host's and the control machine's clocks. Certificates are new when they are made: a clock that is
minutes behind finds them not valid yet."""

_OTHER_CNI = re.compile(r"^(flannel\.|cni0$|cilium_|cali[0-9a-f]{11}$|vxlan\.calico$|weave$|kube-bridge$|antrea-gw0$)")
"""Interfaces of other pod networks: flannel, bridge, Cilium, Calico, Weave, kube-router, Antrea."""


@dataclass(frozen=True)
class Row:
    """One check. The fields are keys of the module's result."""

    check: str
    """What was looked at, in one or two words."""
    state: str
    """OK, WARNING or ERROR."""
    what: str
    """What was found, as one sentence."""
    remedy: str = ""
    """What to do about it; empty if the state is OK."""


def quick_rows() -> list[Row]:
    """Return the rows of all checks but that of the clock, which needs the control machine's. Raises OSError."""
    return [*tun_rows(), *rp_filter_rows(), *other_network_rows()]


def clock_row(host: float, before: float, after: float) -> Row:
    """Compare a host's clock with the control machine's; all times are in seconds since 1970. Pure.

    The host was asked between ``before`` and ``after`` by the control machine's clock, perhaps for long: only what lies
    outside of this time is a difference.
    """
    skew = max(before - host, host - after, 0.0)
    remedy = "timedatectl set-ntp true; timedatectl"
    if skew > CLOCK_ERROR:
        return Row("clock", ERROR, f"it differs from the control machine's by {skew:.0f} s", remedy)
    if skew > CLOCK_WARNING:
        return Row("clock", WARNING, f"it differs from the control machine's by {skew:.0f} s", remedy)
    return Row("clock", OK, "it agrees with the control machine's")


def tun_rows() -> Iterator[Row]:
    """Look for the device of programs that forward packets themselves."""
    if not os.path.exists("/dev/net/tun"):
        yield Row("tun", ERROR, "there is no /dev/net/tun, which wireguard-go and vswitchd need", "modprobe tun")
    else:
        yield Row("tun", OK, "/dev/net/tun is there")


def rp_filter_rows() -> Iterator[Row]:
    """Look for strict reverse path filtering on all interfaces."""
    try:
        with open("/proc/sys/net/ipv4/conf/all/rp_filter", encoding="ascii") as file:
            value = file.read().strip()
    except OSError:
        return
    if value == "1":
        yield Row(
            "rp_filter",
            WARNING,
            "net.ipv4.conf.all.rp_filter is 1: the kernel drops packets whose answer would leave by another interface, "
            "as on hosts with two uplinks",
            "sysctl -w net.ipv4.conf.all.rp_filter=2, and in a file of /etc/sysctl.d",
        )
    else:
        yield Row("rp_filter", OK, f"net.ipv4.conf.all.rp_filter is {value}")


def other_network_rows() -> Iterator[Row]:
    """Look for interfaces of other pod networks; there is no row if there are none."""
    interfaces = sorted(name for _index, name in socket.if_nameindex() if _OTHER_CNI.match(name))
    if interfaces:
        yield Row(
            "other CNI",
            WARNING,
            f"another pod network has left {', '.join(interfaces[:5])}",
            f"remove that network, then: ip link delete {interfaces[0]}",
        )
