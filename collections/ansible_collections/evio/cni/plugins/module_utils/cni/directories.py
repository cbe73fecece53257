# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the container runtime will find the CNI configuration and the plugin, and no other network before them."""

from __future__ import annotations

from dataclasses import dataclass, field

from .. import paths
from . import conf_dir, cri


@dataclass(frozen=True)
class Directories:
    """What was found beside the CNI configuration of this collection."""

    conf_dir: str | None = None
    """The runtime's directory of CNI configuration; None if no runtime was asked or it does not tell it."""
    bin_dirs: tuple[str, ...] = ()
    """The runtime's directories of CNI plugins."""
    other_files: list[str] = field(default_factory=list)
    """Files of other networks that the runtime would use if this collection's file were not there."""

    def warning(self, directory: str) -> str | None:
        """Return what to say about ``other_files`` in ``directory``; None if there are none."""
        if not self.other_files:
            return None
        return (
            f"{directory} also has {', '.join(self.other_files)}: the container runtime gives pods that network "
            f"whenever {paths.CONFLIST_NAME} is not there; remove it if no other program keeps it"
        )


def check_directories(
    directory: str, bin_dir: str, *, network: str = "evio", cri_socket: str = "", is_required: bool = False
) -> Directories:
    """Look at the directory of CNI configuration, ask the runtime for its directories, and compare.

    An empty ``cri_socket`` asks no runtime. ``is_required``: whether the runtime must answer. Raises EvioError if
    another network's file sorts before this collection's, or the runtime reads other directories.
    """
    conf_dir.refuse_competitors(directory, network)
    others = conf_dir.later_files(directory)
    status = _status(cri_socket, is_required=is_required) if cri_socket else None
    if status is None:
        return Directories(other_files=others)
    cri.refuse_other_directories(status, cri_socket, directory, bin_dir)
    return Directories(status.conf_dir, tuple(status.bin_dirs), others)


def _status(cri_socket: str, *, is_required: bool) -> cri.NetworkStatus | None:
    try:
        return cri.network_status(cri_socket)
    except cri.CriError:
        if is_required:
            raise
        return None
