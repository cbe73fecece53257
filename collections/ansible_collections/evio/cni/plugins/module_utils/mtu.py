# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits of an MTU in bytes, each with its source. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

MOST_MTU = {"system": 65535, "netdev": 65521}
"""Bytes, by the kind of datapath: a userspace bridge is a tap device, which counts Ethernet's header in."""
LEAST_MTU_IPV6 = 1280
"""RFC 8200 section 5: no link that carries IPv6 may have less."""
LEAST_MTU = {4: 68, 6: 1280}
"""RFC 791 and RFC 8200, section 5: below it the kernel takes the family away from the link."""
