# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read the configurations of this node's networks from the runtime's conflists, for the operator's commands.

A runtime sends the plugin its configuration on standard input; a person who runs ``evio repair`` does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..cni.conflist import PLUGIN
from ..cni.netconf import NetConf
from ..errors import EvioError


class NodeNetworksError(EvioError):
    """No conflist of this node has a usable entry of our type."""


def read_networks(directory: str, warn: Callable[[str], None]) -> list[NetConf]:
    """Return the configuration of every entry of our type in the conflists of ``directory``.

    ``warn`` is called with one sentence for each file or entry that cannot be read. Raises NodeNetworksError where no
    entry can.
    """
    networks: list[NetConf] = []
    faults: list[str] = []
    for path, entry in _all_entries(directory, faults):
        try:
            networks.append(NetConf(entry))
        except EvioError as error:
            faults.append(f"{path}: {error}")
    if not networks:
        raise NodeNetworksError(
            "; ".join(faults)
            or f"no conflist in {directory} has an entry of type {PLUGIN}: this node is not set up for pods yet; "
            "run the playbook evio.cni.bootstrap for it"
        )
    for fault in faults:
        warn(fault)
    return networks


def runtime_configurations(directory: str) -> list[str]:
    """Return what a runtime would send the plugin for each of our networks, as JSON; unreadable files are left out."""
    return [json.dumps(entry) for _path, entry in _all_entries(directory, [])]


def _all_entries(directory: str, faults: list[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield our entries, each with its file; add one sentence to ``faults`` for each file that cannot be read."""
    for path in sorted(Path(directory).glob("*.conflist")):
        try:
            entries = _entries(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, RecursionError, ValueError) as error:
            faults.append(f"cannot read {path}: {error}")
            continue
        for entry in entries:
            yield path, entry


def _entries(conflist: Any) -> list[dict[str, Any]]:
    """Return our entries as a runtime would send them: with the list's name, and the newest version that it names."""
    plugins = conflist.get("plugins") if isinstance(conflist, dict) else None
    if not isinstance(plugins, list):
        return []
    versions = conflist.get("cniVersions")
    listed = [conflist.get("cniVersion"), *(versions if isinstance(versions, list) else ())]
    version = max((name for name in listed if isinstance(name, str)), default="")
    return [
        {**entry, "name": conflist.get("name"), "cniVersion": version}
        for entry in plugins
        if isinstance(entry, dict) and entry.get("type") == PLUGIN
    ]
