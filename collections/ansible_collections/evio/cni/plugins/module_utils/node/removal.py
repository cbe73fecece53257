# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the CNI plugin has left on a node that leaves the cluster: its journal, IPAM's reservations, firewall rules.

Bridge, conflist and programs are removed by the modules that have installed them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..atomic_file import unfinished_writes
from ..cni.attachment import Attachment
from ..firewall import forwarding
from ..firewall.network_rules import FAMILY, TABLE
from ..kernel import nft
from ..path_removal import PathRemoval
from ..state import journal
from ..state.attachments import journal_entries
from ..state.event_log import metrics_directory
from ..state.fence import fence_file
from ..state.lock import lock_file


@dataclass(frozen=True)
class PluginState:
    """What is left on the node."""

    running: tuple[Attachment, ...]
    """Attachments of pods that still run. Their DEL needs the journal and the programs."""
    written: PathRemoval
    """The plugin's directories, and what it has written in the state directory, where others may have files, too."""
    has_rules: bool
    """Whether our table of nftables is there."""


def find_state(network: str, state_dir: str, *, run_dir: str, reservations_dir: str) -> PluginState:
    """Return what is left on the node. Raises an EvioError if it cannot be read."""
    kept = journal.Journal(state_dir)
    running = [
        entry.attachment for name in _networks(state_dir) for entry in journal_entries(kept, name) if entry.is_alive
    ]
    written = _written(network, state_dir, [run_dir, os.path.join(reservations_dir, network)])
    return PluginState(tuple(running), written, has_rules=bool(nft.chains(TABLE, FAMILY)))


def _networks(state_dir: str) -> list[str]:
    return [name for name in journal.networks(state_dir) if os.path.isdir(f"{state_dir}/{name}")]


def _written(network: str, state_dir: str, own_directories: list[str]) -> PathRemoval:
    kept = journal.Journal(state_dir)
    entries: list[str] = []
    directories: list[str] = []
    for name in _networks(state_dir):
        attachments = kept.attachments(name)
        has_others = len(attachments) < kept.size(name) or not all(each.is_valid for each in attachments)
        if name == network or (attachments and not has_others):
            entries += [f"{state_dir}/{each.path}" for each in attachments if each.is_valid]
            directories.append(f"{state_dir}/{name}")
    fence = fence_file(state_dir)
    if os.path.dirname(os.path.normpath(state_dir)) != "/":
        # A directory such as /srv is not removed.
        directories.append(state_dir)
    return PathRemoval(
        paths=[*own_directories, metrics_directory(state_dir)],
        files=[*entries, fence, *unfinished_writes(fence), lock_file(state_dir)],
        empty_directories=directories,
    )


def remove_state(state: PluginState, bridge: str) -> None:
    """Remove it, and the accepts for the bridge in other firewalls. Raises an EvioError."""
    forwarding.withdraw(bridge)
    if state.has_rules:
        nft.apply(f"delete table {FAMILY} {TABLE}\n")
    state.written.apply()
