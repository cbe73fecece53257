# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits of an MTU in bytes, each with its source. Pure."""

from __future__ import annotations

LEAST_MTU_IPV6 = 1280
"""RFC 8200 section 5: no link that carries IPv6 may have less."""

LEAST_MTU = {4: 68, 6: LEAST_MTU_IPV6}
"""By IP version (RFC 791 and RFC 8200 section 5). The kernel removes the family from a link whose MTU is lower."""

MOST_MTU = {"system": 65535, "netdev": 65521}
"""By datapath type. A userspace bridge is a tap device, which counts the Ethernet header in."""

LEAST_OVERLAY_MTU = {4: 576, 6: LEAST_MTU_IPV6}
"""By IP version of the host overlay: 576 is what every IPv4 host must accept (RFC 791)."""

MOST_OVERLAY_MTU = 9000
"""What jumbo frames carry: more has no underlay."""
