# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The values of settings that the user leaves out. The roles' defaults repeat some of them; a unit test compares both.

Paths have defaults of their own in ``paths``.
"""

from __future__ import annotations

CLUSTER = "kubernetes"
"""Name of the cluster, a part of its keys in etcd."""

BRIDGE = "br-evio"
"""The OVS bridge that pods are connected to."""

DATAPATH_TYPE = "system"
"""Of that bridge: the kernel's datapath."""

OVS_TIMEOUT = 30.0
"""Seconds within which Open vSwitch must have answered all requests of a module or of a repair together."""

HOST_OVERLAY_CIDR = "10.10.0.0/16"
POD_CIDR = "10.244.0.0/16"

OVERLAY_MTU = 1420
"""Bytes. An underlay of 1500 leaves this much inside WireGuard over IPv6."""

QUARANTINE = 3600.0
"""Seconds for which a released subnet rests before another node can get it."""
