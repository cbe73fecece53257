# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The name of an attachment: the network, the container and the interface that every call of a runtime is about.

The journal, the lock, IPAM and the host's end of the veth pair are found by this name alone.
"""

from __future__ import annotations

from .spec import CniError, check_attachment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class Attachment(tuple[str, str, str]):
    """One interface of one container on one network. Immutable, hashable, sorted by network, container and interface.

    A tuple, because ``dataclasses`` would take longer to import than a whole call.
    """

    __slots__ = ()

    def __new__(cls, network: str, container_id: str, ifname: str) -> Self:
        """Name an attachment, without checking the names: ``is_valid`` does that."""
        return tuple.__new__(cls, (network, container_id, ifname))

    @property
    def network(self) -> str:
        """The network's name, as in the configuration."""
        return self[0]

    @property
    def container_id(self) -> str:
        """The container's id, as in CNI_CONTAINERID."""
        return self[1]

    @property
    def ifname(self) -> str:
        """The name of the pod's interface, as in CNI_IFNAME."""
        return self[2]

    @property
    def path(self) -> str:
        """``<network>/<container id>:<ifname>``: the path of its journal entry below the state directory."""
        return f"{self[0]}/{self[1]}:{self[2]}"

    @property
    def is_valid(self) -> bool:
        """Whether an ADD of this attachment would be accepted: both names are valid (SPEC.md section 2)."""
        try:
            check_attachment(self[1], self[2])
        except CniError:
            return False
        return True

    def __str__(self) -> str:
        """Return container id and interface name, as messages have them."""
        return f"{self[1]} {self[2]}"
