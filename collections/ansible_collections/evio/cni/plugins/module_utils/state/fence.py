# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fence of a node that has lost its claim on its pod subnet: while it stands, no new pod gets an address.

It is a file in the state directory that holds the reason, so that ADD and STATUS know without asking etcd. Those that
ask etcd put it up and take it down: the role node_subnet, evio-config-gen and ``evio status``.
"""

from __future__ import annotations

import posix

from .directory import StateError

_FILE = ".fence"
"""No network's directory can have this name: the names of networks begin with a letter or a digit."""
_LONGEST_REASON = 4096
"""Bytes."""


class FenceError(StateError):
    """The node has lost its claim on its pod subnet: no new pod may get an address of it."""


def fence_file(state_dir: str) -> str:
    """Return the path of the fence."""
    return f"{state_dir}/{_FILE}"


def read_fence(state_dir: str) -> str | None:
    """Return why the node is fenced; None if it is not."""
    try:
        with open(fence_file(state_dir), "rb", 0) as file:
            reason = file.read(_LONGEST_REASON)
    except OSError:
        return None
    return reason.decode("utf-8", "replace").strip() or "its claim is lost"


def refuse_if_fenced(state_dir: str) -> None:
    """Raise FenceError if the node is fenced: another node may have its pods' addresses by now."""
    reason = read_fence(state_dir)
    if reason is not None:
        raise FenceError(
            f"this node's claim on its pod subnet is lost: {reason}; running pods keep their network; run the playbook "
            "evio.cni.bootstrap, with evio_node_subnet_restore=true to claim the same subnet again"
        )


def put_up_fence(state_dir: str, reason: str) -> bool:
    """Fence the node. Return False if it was fenced for this reason already. Raises StateError."""
    # Imports pathlib, which ADD and STATUS do not need.
    from ..atomic_file import write_atomic
    from .event_log import FENCE, note_event

    before = read_fence(state_dir)
    if before == reason:
        return False
    try:
        write_atomic(fence_file(state_dir), reason + "\n", mode=0o600)
    except OSError as error:
        raise StateError(f"cannot write {fence_file(state_dir)}: {error.strerror}") from None
    if before is None:
        note_event(state_dir, FENCE, 1)
    return True


def take_down_fence(state_dir: str) -> bool:
    """Let new pods in again. Return False if there was no fence. Raises StateError."""
    try:
        posix.unlink(fence_file(state_dir))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StateError(f"cannot remove {fence_file(state_dir)}: {error.strerror}") from None
    return True
