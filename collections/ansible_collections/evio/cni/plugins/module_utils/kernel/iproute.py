# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pyroute2: the only file that imports it, for network devices outside the plugin's ADD and DEL.

ADD and DEL use ``rtnetlink``, because the import of pyroute2 takes ten times as long as a whole ADD.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from ..errors import EvioError
from .netlink import NetlinkError

ROUTE_PROTOCOL = 225
"""Marks our routes: rtnetlink(7) leaves the values above RTPROT_STATIC to programs for this purpose."""

ANY_SCOPE = 255
"""RT_SCOPE_NOWHERE of linux/rtnetlink.h: a request to delete a route fits a route of any scope."""


class Pyroute2MissingError(EvioError):
    """The library pyroute2 is not installed."""


@contextlib.contextmanager
def open_iproute(what: str) -> Iterator[Any]:
    """Open pyroute2's IPRoute in the caller's network namespace, and close it at the end of the block.

    A request that the kernel refuses inside the block raises NetlinkError; ``what`` begins its message. Raises
    Pyroute2MissingError where the library is not installed.
    """
    # Rare path: the import takes 100 ms, and check mode must work before the library is installed.
    try:
        from pyroute2 import IPRoute
    except ImportError as error:
        raise Pyroute2MissingError(
            f"{what}: the Python library pyroute2 is missing; install the package python3-pyroute2"
        ) from error
    with netlink_errors(what), IPRoute() as iproute:
        yield iproute


@contextlib.contextmanager
def netlink_errors(what: str) -> Iterator[None]:
    """Raise pyroute2's NetlinkError as ours, whose ``errno`` is the kernel's. ``what`` begins the message."""
    # Rare path, as above.
    from pyroute2.netlink.exceptions import NetlinkError as Pyroute2Error

    try:
        yield
    except Pyroute2Error as error:
        raise NetlinkError(what, error.code) from error
