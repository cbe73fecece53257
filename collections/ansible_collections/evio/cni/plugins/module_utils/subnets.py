# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Subnet arithmetic: from PodCIDR and NodeBits to a node's subnet, its gateway and its pods' addresses.

Pure, and the same for IPv4 and IPv6. ``claims`` decides which node gets which subnet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Union

from .errors import EvioError

Network = Union[IPv4Network, IPv6Network]  # noqa: UP007  ansible-test takes | between classes for an error

_FEWEST_HOST_BITS = 2
"""Of a node's subnet: its gateway and one pod need two addresses, besides the first and the last one."""

_MOST_NODE_BITS = 16
"""65 536 nodes, the limit of this design; Kubernetes has the same limit for IPv6 pools."""


class SubnetError(EvioError):
    """A network or a number of bits cannot be used; the message names the variable and the value."""


@dataclass(frozen=True)
class NodeSubnet:
    """A node's subnet of one pool."""

    cidr: str
    """``10.244.3.0/24``, for example."""

    @cached_property
    def network(self) -> Network:
        """The subnet as a network object."""
        return ip_network(self.cidr)

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.network.version

    @property
    def gateway_address(self) -> str:
        """The bridge's address: the first host address."""
        return str(self.network[1])

    @property
    def gateway(self) -> str:
        """The bridge's address with the subnet's prefix length."""
        return f"{self.gateway_address}/{self.network.prefixlen}"

    def gateway_in(self, segment: str) -> str:
        """Return the bridge's address with the prefix length of ``segment``, a network that all nodes' pods share."""
        return f"{self.gateway_address}/{ip_network(segment).prefixlen}"

    @property
    def range_start(self) -> str:
        """The first pod's address."""
        return str(self.network[2])

    @property
    def range_end(self) -> str:
        """The last pod's address. The subnet's last address is not used: in IPv4 it is the broadcast address."""
        return str(self.network[-2])


@dataclass(frozen=True)
class Pool:
    """The pool of one family: a pod network that is divided into 2**node_bits subnets. parse_pool checks the values."""

    pod_cidr: str
    node_bits: int

    @cached_property
    def network(self) -> Network:
        """The pod network as a network object."""
        return ip_network(self.pod_cidr)

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.network.version

    @property
    def prefix_length(self) -> int:
        """The prefix length of a node's subnet."""
        return self.network.prefixlen + self.node_bits

    @property
    def size(self) -> int:
        """The number of subnets."""
        return 1 << self.node_bits

    def subnet(self, index: int) -> NodeSubnet:
        """Return the subnet with this index, counted from 0. Raises IndexError outside the pool."""
        if not 0 <= index < self.size:
            raise IndexError(f"{self.pod_cidr} has {self.size} subnets, none of number {index}")
        first = int(self.network.network_address) + (index << self._host_bits)
        address = type(self.network.network_address)(first)
        return NodeSubnet(f"{address}/{self.prefix_length}")

    def index(self, cidr: str) -> int:
        """Return the index of a subnet. Raises SubnetError if it is not a subnet of this pool."""
        network = _network("subnet", cidr)
        if cidr not in self:
            raise SubnetError(f"{cidr} is not one of the /{self.prefix_length} subnets of {self.pod_cidr}")
        return (int(network.network_address) - int(self.network.network_address)) >> self._host_bits

    def __contains__(self, cidr: object) -> bool:
        """Return whether this is one of the pool's subnets."""
        try:
            network = ip_network(str(cidr))
        except ValueError:
            return False
        return network.prefixlen == self.prefix_length and _is_within(network, self.network)

    @property
    def _host_bits(self) -> int:
        return self.network.max_prefixlen - self.prefix_length


def parse_pool(
    pod_cidr: str, node_bits: int | str, *, names: tuple[str, str] = ("evio_pod_cidr", "evio_node_bits")
) -> Pool:
    """Return the pool of one network. Raises SubnetError; ``names`` are the two variables that its message names."""
    network = _network(names[0], pod_cidr)
    try:
        bits = int(str(node_bits).strip())
    except ValueError:
        raise SubnetError(f"{names[1]}: {node_bits!r} is not a number of bits") from None
    most = min(_MOST_NODE_BITS, network.max_prefixlen - network.prefixlen - _FEWEST_HOST_BITS)
    if not 0 <= bits <= most:
        left = network.max_prefixlen - network.prefixlen - bits
        why = (
            f"leaves {left} bits for pods, fewer than {_FEWEST_HOST_BITS}"
            if left < _FEWEST_HOST_BITS
            else "is too many"
        )
        raise SubnetError(
            f"{names[1]}: {bits} of {names[0]} {network} {why if bits > 0 else 'is negative'}; "
            f"from 0 to {max(most, 0)} can be used"
        )
    return Pool(str(network), bits)


def parse_pools(
    pod_cidr: str, node_bits: int | str, *, names: tuple[str, str] = ("evio_pod_cidr", "evio_node_bits")
) -> tuple[Pool, ...]:
    """Return the pools of all networks: of ``"10.244.0.0/16,fd00::/48"`` and ``"8,16"``, for example.

    A single number of bits holds for all networks. Raises SubnetError, also for two networks of one family.
    """
    cidrs = [cidr.strip() for cidr in pod_cidr.split(",")]
    bits = [number.strip() for number in str(node_bits).split(",")]
    if len(bits) == 1:
        bits *= len(cidrs)
    if len(bits) != len(cidrs):
        raise SubnetError(f"{names[1]}: {node_bits!r} has {len(bits)} numbers for {len(cidrs)} networks in {names[0]}")
    pools = tuple(parse_pool(cidr, number, names=names) for cidr, number in zip(cidrs, bits, strict=True))
    if len({pool.family for pool in pools}) != len(pools):
        raise SubnetError(
            f"{names[0]}: {pod_cidr!r} has two networks of one family; give one IPv4 and one IPv6 network"
        )
    return pools


def check_network(name: str, cidr: str) -> None:
    """Raise SubnetError unless this is a network in CIDR notation; ``name`` is the variable that has it."""
    _network(name, cidr)


def refuse_overlaps(cidrs: Mapping[str, str]) -> None:
    """Raise SubnetError if two of these networks overlap. They are given by the names of their variables."""
    networks = [(name, _network(name, cidr)) for name, cidr in cidrs.items()]
    for place, (name, network) in enumerate(networks):
        for other_name, other in networks[place + 1 :]:
            if overlaps(network, other):
                raise SubnetError(f"{name} {network} and {other_name} {other} overlap; give each a network of its own")


def reserved_places(pool: Pool, reserved: Sequence[str]) -> list[range]:
    """Return the indexes of the pool's subnets that overlap a reserved network, as ranges. Raises SubnetError."""
    places = []
    for cidr in reserved:
        network = _network("reserved_cidrs", cidr)
        if not overlaps(network, pool.network):
            continue
        base, shift = int(pool.network.network_address), pool.network.max_prefixlen - pool.prefix_length
        first = max(int(network.network_address) - base, 0) >> shift
        last = min((int(network.broadcast_address) - base) >> shift, pool.size - 1)
        places.append(range(first, last + 1))
    return places


def overlaps(first: Network, second: Network) -> bool:
    """Return whether two networks share an address. Networks of different families never do."""
    return first.version == second.version and first.overlaps(second)


def _network(name: str, value: str) -> Network:
    try:
        return ip_network(value, strict=True) if "/" in value else _refuse(name, value, "has no prefix length")
    except ValueError as error:
        raise SubnetError(f"{name}: {value!r} is not a network in CIDR notation: {error}") from error


def _refuse(name: str, value: str, why: str) -> Network:
    raise SubnetError(f"{name}: {value!r} is not a network in CIDR notation: it {why}")


def _is_within(network: Network, container: Network) -> bool:
    return network.version == container.version and network.subnet_of(container)  # type: ignore[arg-type]
