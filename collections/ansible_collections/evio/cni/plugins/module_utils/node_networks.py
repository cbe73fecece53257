# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The networks of this node, as the conflists of its runtime say: what operator's commands and repair work on.

A runtime hands the plugin its configuration on standard input; a person does not, so it is looked up here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import paths
from .conflist import PLUGIN
from .errors import EvioError
from .netconf import NetConf


class NodeNetworksError(EvioError):
    """There is no configuration of ours on this node, or it cannot be read."""


def read_networks(directory: str = paths.CNI_CONF_DIR) -> list[NetConf]:
    """Every entry of our type in every conflist. Raises NodeNetworksError if there is none, CniError for a bad one."""
    networks = []
    for path in sorted(Path(directory).glob("*.conflist")):
        try:
            conflist = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NodeNetworksError(f"cannot read {path}: {error}") from error
        networks += [NetConf(entry) for entry in _entries(conflist)]
    if not networks:
        raise NodeNetworksError(
            f"no conflist in {directory} has an entry of type {PLUGIN}: this node has no pods' network yet"
        )
    return networks


def _entries(conflist: Any) -> list[dict[str, Any]]:
    """Our entries as a runtime of the newest version would send them."""
    if not isinstance(conflist, dict):
        return []
    version = max([conflist.get("cniVersion", ""), *(conflist.get("cniVersions") or ())])
    return [
        {**entry, "name": conflist.get("name"), "cniVersion": version}
        for entry in conflist.get("plugins") or ()
        if isinstance(entry, dict) and entry.get("type") == PLUGIN
    ]
