# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fence of a node whose claim on its subnet is lost: while it stands, no pod is given an address of it.

A file with the reason in the state directory, so that ADD and STATUS know without asking etcd. Who has asked etcd puts
it up and takes it down: a run of the role node_subnet or of evio-config-gen, and ``evio status`` where it can ask.
"""

from __future__ import annotations

import posix

from ..cni.spec import IO_FAILURE, NOT_AVAILABLE, CniError

_FILE = ".fence"
"""A network's directory cannot have this name."""


def fence_file(state_dir: str) -> str:
    return f"{state_dir}/{_FILE}"


def read_fence(state_dir: str) -> str | None:
    """Why the node is fenced; None if it is not."""
    try:
        descriptor = posix.open(fence_file(state_dir), posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        return posix.read(descriptor, 4096).decode("utf-8", "replace").strip() or "its claim is lost"
    finally:
        posix.close(descriptor)


def refuse_if_fenced(state_dir: str) -> None:
    """Raise CniError where new pods would get addresses that another node may have by now."""
    reason = read_fence(state_dir)
    if reason is not None:
        raise CniError(NOT_AVAILABLE, f"this node's claim on its pod subnet is lost: {reason}")


def put_up_fence(state_dir: str, reason: str) -> bool:
    """Refuse new pods from now on; False if that was so for this reason. Raises CniError."""
    from ..atomic_file import write_atomic

    if read_fence(state_dir) == reason:
        return False
    try:
        write_atomic(fence_file(state_dir), reason + "\n", mode=0o600)
    except OSError as error:
        raise CniError(IO_FAILURE, f"cannot write {fence_file(state_dir)}: {error.strerror}") from None
    return True


def take_down_fence(state_dir: str) -> bool:
    """Let new pods in again; False if there was no fence. Raises CniError."""
    try:
        posix.unlink(fence_file(state_dir))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CniError(IO_FAILURE, f"cannot remove {fence_file(state_dir)}: {error.strerror}") from None
    return True
