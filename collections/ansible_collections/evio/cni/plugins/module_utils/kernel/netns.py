# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Network namespaces of pods: open one by its path, look for an interface in it, run a function in it."""

from __future__ import annotations

import fcntl
import posix
from _socket import if_nametoindex

from ..errors import EvioError
from .numbers import EINVAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703
"""linux/sched.h, linux/nsfs.h"""
_OWN = "/proc/thread-self/ns/net"
_OWN_PROCESS: Any = None
"""For dlopen(3): the symbols of the running program, libc's among them."""


class NetnsError(EvioError):
    """A path is not the network namespace of a pod."""


def open_netns(path: str) -> int:
    """Open a pod's network namespace and return the descriptor. Raises NetnsError, also for the host's own."""
    try:
        # O_NONBLOCK: opening a named pipe must not wait for its writer.
        netns = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NetnsError(f"{path!r} cannot be opened: {reason}") from None
    if not _is_network(netns):
        posix.close(netns)
        raise NetnsError(f"{path!r} is no network namespace")
    there, here = posix.fstat(netns), posix.stat(_OWN)
    if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
        posix.close(netns)
        raise NetnsError(f"{path!r} is the host's own network, not a pod's")
    return netns


def _is_network(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def is_netns(path: str) -> bool:
    """Return whether there is a namespace at the path; a file whose namespace was unmounted is an ordinary file."""
    try:
        return posix.stat(path).st_dev == posix.stat(_OWN).st_dev
    except OSError:
        return False


def has_interface(name: str) -> bool:
    """Return whether an interface of this name exists in the namespace of the calling thread."""
    try:
        return if_nametoindex(name) > 0
    except OSError:
        return False


def in_netns(netns: int, work: Callable[[], Result]) -> Result:
    """Run ``work`` in the namespace of an open descriptor and return its result; the thread then returns to its own."""
    own = posix.open(_OWN, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        setns(netns)
        try:
            return work()
        finally:
            setns(own)
    finally:
        posix.close(own)


def setns(descriptor: int) -> None:
    """Move the calling thread into the network namespace. Raises OSError."""
    if hasattr(posix, "setns"):
        posix.setns(descriptor, _CLONE_NEWNET)
        return
    # Before Python 3.12. ``ctypes`` takes three times as long to import as its C module and these two calls.
    import _ctypes

    if _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(_OWN_PROCESS, 2), "setns"), (descriptor, _CLONE_NEWNET)) != 0:
        raise OSError(EINVAL, "not a network namespace")
