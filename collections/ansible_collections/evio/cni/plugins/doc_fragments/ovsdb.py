# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The option of every module that needs Open vSwitch's database."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of where the OVSDB server listens."""

    DOCUMENTATION = r"""
options:
  ovsdb:
    description: Socket of the OVSDB server.
    type: str
    default: unix:/var/run/openvswitch/db.sock
attributes:
  action_group:
    description: Use C(group/evio.cni.ovs) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - evio.cni.ovs
"""

    # For modules that wait for what they change there: evio.cni.ovsdb.timeout.
    TIMEOUT = r"""
options:
  timeout:
    description:
      - Seconds within which Open vSwitch must have answered all requests of the module together.
      - What a slower Open vSwitch has begun stays, and the next run goes on from there.
    type: float
    default: 30.0
"""
