# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Network namespaces of pods: opened by the path that the runtime gives, entered and left again."""

from __future__ import annotations

import fcntl
import posix
from _socket import if_nametoindex

from ..cni.spec import INVALID_ENVIRONMENT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703
"""linux/nsfs.h."""
_OWN = "/proc/thread-self/ns/net"
_OWN_PROCESS: Any = None
"""dlopen(3): the symbols of the program itself, libc's among them."""


def open_netns(path: str) -> int:
    """The descriptor of a pod's namespace. Raises CniError for what is none, and for the host's own."""
    try:
        # Without waiting for a writer, should it be a pipe.
        netns = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS {path!r} cannot be opened: {reason}") from None
    if not _is_network(netns):
        posix.close(netns)
        raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS {path!r} is no network namespace")
    there, here = posix.fstat(netns), posix.stat(_OWN)
    if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
        posix.close(netns)
        raise CniError(INVALID_ENVIRONMENT, f"CNI_NETNS {path!r} is the host's own network, not a pod's")
    return netns


def _is_network(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def is_netns(path: str) -> bool:
    """Whether a namespace is there: what is left of one that was unmounted is a file like any other."""
    try:
        return posix.stat(path).st_dev == posix.stat(_OWN).st_dev
    except OSError:
        return False


def has_interface(name: str) -> bool:
    """Whether there is a device of this name where the caller is."""
    try:
        return if_nametoindex(name) > 0
    except OSError:
        return False


def in_netns(netns: int, work: Callable[[], Result]) -> Result:
    """Do a piece of work in the network namespace of a file descriptor, and come back whatever happens."""
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
    # Before Python 3.12; importing ctypes itself takes three times as long as these two calls.
    import _ctypes

    if _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(_OWN_PROCESS, 2), "setns"), (descriptor, _CLONE_NEWNET)) != 0:
        raise OSError(22, "not a network namespace")
