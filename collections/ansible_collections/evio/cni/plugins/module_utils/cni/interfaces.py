# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The three interfaces of an attachment, as ADD reports them in its result: the bridge and both ends of the veth pair.

How the whole result is put together: result.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self


class Interface:
    """One element of the result's ``interfaces`` (SPEC.md section 5, "Success")."""

    __slots__ = ("mac", "mtu", "name", "sandbox")

    def __init__(self, name: str, mac: str, mtu: int, sandbox: str = "") -> None:
        """``mac`` is in lower case with colons, ``mtu`` in bytes; ``sandbox`` is the pod's netns, empty on the host."""
        self.name = name
        self.mac = mac
        self.mtu = mtu
        self.sandbox = sandbox

    def to_json(self) -> dict[str, Any]:
        """Return the object of the newest specification; on the host it has no ``sandbox``."""
        interface: dict[str, Any] = {"name": self.name, "mac": self.mac, "mtu": self.mtu}
        return {**interface, "sandbox": self.sandbox} if self.sandbox else interface


class Interfaces(tuple[Interface, Interface, Interface]):
    """The interfaces of one attachment, in the order in which they stand in the result. Immutable."""

    __slots__ = ()

    POD = 2
    """Index of the pod's interface: the result's ``ips`` refer to it."""

    def __new__(cls, bridge: Interface, host: Interface, pod: Interface) -> Self:
        """``host`` and ``pod`` are the ends of the veth pair."""
        return tuple.__new__(cls, (bridge, host, pod))

    @property
    def bridge(self) -> Interface:
        """The bridge's own device."""
        return self[0]

    @property
    def host(self) -> Interface:
        """The host's end of the veth pair, a port of the bridge."""
        return self[1]

    @property
    def pod(self) -> Interface:
        """The pod's end of the veth pair."""
        return self[2]
