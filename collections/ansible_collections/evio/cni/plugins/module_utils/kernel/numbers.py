# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Numbers of Linux that the plugin's ADD and DEL need, where the import of ``socket`` and ``errno`` is too slow.

Names are those of the kernel's headers; the values hold on amd64, arm64, riscv64 and s390x. Code off the hot path uses
the standard library's names where it has them. A unit test compares the two.
"""

from __future__ import annotations

# asm-generic/errno-base.h, asm-generic/errno.h
ENOENT = 2
EACCES = 13
EEXIST = 17
ENODEV = 19
EINVAL = 22
ECONNRESET = 104

# linux/socket.h, linux/net.h. AF_INET and AF_INET6 are in ``cidr``.
AF_UNIX = 1
AF_NETLINK = 16
SOCK_STREAM = 1
SOCK_RAW = 3
SOCK_CLOEXEC = 0o2000000

# asm-generic/socket.h
SOL_SOCKET = 1
SO_RCVTIMEO = 20
SO_SNDTIMEO = 21

# linux/in.h, linux/in6.h: the module ``socket`` has no names for them.
IP_MTU_DISCOVER = 10
IP_MTU = 14
IPV6_MTU_DISCOVER = 23
IPV6_MTU = 24

PMTUDISC_DO = 2
"""IP_PMTUDISC_DO and IPV6_PMTUDISC_DO: set Don't Fragment, and refuse a datagram that is longer than the path MTU."""
