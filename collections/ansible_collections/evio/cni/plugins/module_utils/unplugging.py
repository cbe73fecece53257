# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a pod's port goes from its bridge: in one transaction, without waiting for vswitchd."""

from __future__ import annotations

from .ovsdb_rpc import Ovsdb, SwitchError
from .ownership import CLOSED_PORT_ID, OWNER, OWNER_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .netconf import NetConf


def unplug(ovsdb: Ovsdb, names: list[str], *, guarded: bool) -> None:
    """Unplug those of these ports that are ours, in one transaction.

    Where they were guarded, the bridge remembers them (CLOSED_PORT_ID) until their flows have gone.
    """
    owned = ["external_ids", "includes", ["map", [[OWNER_ID, OWNER]]]]
    selections: list[dict[str, Any]] = []
    for name in names:
        its = ["name", "==", name]
        selections += (
            {"op": "select", "table": "Interface", "where": [its, owned], "columns": ["ofport"]},
            {"op": "select", "table": "Port", "where": [its], "columns": ["_uuid"]},
        )
    found = ovsdb.transact(*selections)
    removals = []
    for name, interfaces, ports in zip(names, found[::2], found[1::2], strict=True):
        for interface, port in zip(interfaces["rows"], ports["rows"], strict=False):
            mutations = [["ports", "delete", port["_uuid"]]]
            if guarded and isinstance(interface["ofport"], int) and interface["ofport"] > 0:
                closed = [[f"{CLOSED_PORT_ID}{interface['ofport']}", name]]
                mutations.append(["external_ids", "insert", ["map", closed]])
            where = [["ports", "includes", port["_uuid"]]]
            removals.append({"op": "mutate", "table": "Bridge", "where": where, "mutations": mutations})
    if removals:
        ovsdb.transact(*removals)


def try_to_unplug(conf: NetConf, name: str) -> bool:
    """Take the port off its bridge; False if the database cannot be asked now."""
    try:
        with Ovsdb(conf.ovsdb) as ovsdb:
            unplug(ovsdb, [name], guarded=conf.port_security)
    except SwitchError:
        return False
    return True
