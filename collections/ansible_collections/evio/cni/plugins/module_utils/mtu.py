# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits of an MTU in bytes, each with its source. Pure."""

from __future__ import annotations

LEAST_MTU_IPV6 = 1280
"""RFC 8200 section 5: every link that carries IPv6 has at least this MTU."""

LEAST_MTU = {4: 68, 6: LEAST_MTU_IPV6}
"""By IP version (RFC 791 and RFC 8200 section 5). The kernel disables an IP version on a link with a lower MTU."""

MOST_MTU = {"system": 65535, "netdev": 65521}
"""By Open vSwitch's datapath type. A userspace bridge is a tap device, which counts the Ethernet header as well."""

LEAST_OVERLAY_MTU = {4: 576, 6: LEAST_MTU_IPV6}
"""By IP version of the host overlay. Every IPv4 host must accept 576 bytes (RFC 791)."""

MOST_OVERLAY_MTU = 9000
"""The usual MTU of jumbo frames. No underlay carries more."""
