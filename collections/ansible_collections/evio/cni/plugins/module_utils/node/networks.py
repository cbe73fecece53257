# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The networks of this node, as the conflists of its runtime say: what operator's commands and repair work on.

A runtime hands the plugin its configuration on standard input; a person does not, so it is looked up here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..cni.conflist import PLUGIN
from ..cni.netconf import NetConf
from ..errors import EvioError


class NodeNetworksError(EvioError):
    """There is no configuration of ours on this node, or it cannot be read."""


def read_networks(directory: str, tell: Callable[[str], None]) -> list[NetConf]:
    """Every entry of our type in every conflist; ``tell`` hears of files and entries that cannot be read.

    Raises NodeNetworksError where no entry can.
    """
    networks, faults = [], []
    for path in sorted(Path(directory).glob("*.conflist")):
        try:
            entries = _entries(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, RecursionError, ValueError) as error:
            faults.append(f"cannot read {path}: {error}")
            continue
        for entry in entries:
            try:
                networks.append(NetConf(entry))
            except EvioError as error:
                faults.append(f"{path}: {error}")
    if not networks:
        raise NodeNetworksError(
            "; ".join(faults)
            or f"no conflist in {directory} has an entry of type {PLUGIN}: this node has no pods' network yet"
        )
    for fault in faults:
        tell(fault)
    return networks


def _entries(conflist: Any) -> list[dict[str, Any]]:
    """Our entries as a runtime of the newest version would send them."""
    plugins = conflist.get("plugins") if isinstance(conflist, dict) else None
    if not isinstance(plugins, list):
        return []
    versions = conflist.get("cniVersions")
    listed = [conflist.get("cniVersion"), *(versions if isinstance(versions, list) else ())]
    version = max((one for one in listed if isinstance(one, str)), default="")
    return [
        {**entry, "name": conflist.get("name"), "cniVersion": version}
        for entry in plugins
        if isinstance(entry, dict) and entry.get("type") == PLUGIN
    ]
