# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Numbers of Linux that the plugin needs before it can afford ``socket`` and ``errno``. Pure.

Each is named as in the kernel's headers; they are the same on all architectures that Debian 12 is made for but alpha,
hppa, mips and sparc. A test compares them with the standard library's.
"""

from __future__ import annotations

# asm-generic/errno-base.h, asm-generic/errno.h
ENOENT = 2
EACCES = 13
EEXIST = 17
ENODEV = 19
ECONNRESET = 104

# linux/socket.h, linux/net.h
AF_UNIX = 1
AF_NETLINK = 16
SOCK_STREAM = 1
SOCK_RAW = 3
SOCK_CLOEXEC = 0o2000000

# asm-generic/socket.h
SOL_SOCKET = 1
SO_RCVTIMEO = 20
SO_SNDTIMEO = 21

# linux/in.h, linux/in6.h
IP_MTU_DISCOVER = 10
IP_MTU = 14
IPV6_MTU_DISCOVER = 23
IPV6_MTU = 24
PMTUDISC_DO = 2
"""IP_PMTUDISC_DO and IPV6_PMTUDISC_DO: send nothing that would have to be fragmented."""
