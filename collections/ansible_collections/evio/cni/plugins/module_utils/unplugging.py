# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a pod's port goes from its bridge: without waiting for vswitchd."""

from __future__ import annotations

from .ovsdb_rpc import OWNED, Ovsdb, SwitchError, as_map
from .ownership import CLOSED_PORT_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netconf import NetConf


def unplug(ovsdb: Ovsdb, name: str, *, guarded: bool) -> None:
    """Unplug the port if it is ours. Raises SwitchError.

    Where it was guarded, the bridge remembers it (CLOSED_PORT_ID) until its flows have gone.
    """
    its = ["name", "==", name]
    interfaces, ports = ovsdb.transact(
        {"op": "select", "table": "Interface", "where": [its, OWNED], "columns": ["ofport"]},
        {"op": "select", "table": "Port", "where": [its], "columns": ["_uuid"]},
    )
    if not interfaces["rows"] or not ports["rows"]:
        return
    ofport, uuid = interfaces["rows"][0]["ofport"], ports["rows"][0]["_uuid"]
    mutations = [["ports", "delete", uuid]]
    if guarded and isinstance(ofport, int) and ofport > 0:
        mutations.append(["external_ids", "insert", as_map({f"{CLOSED_PORT_ID}{ofport}": name})])
    where = [["ports", "includes", uuid]]
    ovsdb.transact({"op": "mutate", "table": "Bridge", "where": where, "mutations": mutations})


def try_to_unplug(conf: NetConf, name: str) -> bool:
    """Take the port off its bridge; False if the database cannot be asked now."""
    try:
        with Ovsdb(conf.ovsdb) as ovsdb:
            unplug(ovsdb, name, guarded=conf.port_security)
    except SwitchError:
        return False
    return True
