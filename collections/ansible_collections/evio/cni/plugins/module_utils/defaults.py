# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a setting is when the user leaves it out. The roles' defaults repeat some of them; a test compares the two."""

from __future__ import annotations

CLUSTER = "kubernetes"
"""Name of the cluster: part of its keys in etcd."""

BRIDGE = "br-evio"
"""The OVS bridge that pods are plugged into."""

HOST_OVERLAY_CIDR = "10.10.0.0/16"
POD_CIDR = "10.244.0.0/16"

OVERLAY_MTU = 1420
"""Bytes: what WireGuard over IPv6 leaves of an underlay of 1500."""

QUARANTINE = 3600.0
"""Seconds that a released subnet rests before another node can get it."""
