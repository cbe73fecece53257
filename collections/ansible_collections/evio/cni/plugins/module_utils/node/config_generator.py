# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Set up a node's CNI configuration without Ansible: claim its subnets in etcd, then write its conflist.

The program ``evio-config-gen`` reads the settings; ``claims.registry`` claims, and ``cni.conflist`` has the format.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..claims.model import LostClaimError, Request, subnets_of
from ..claims.registry import Registry
from ..cni.conf_dir import refuse_competitors, write_conflist
from ..cni.conflist import CHAINED_PLUGINS, PodNetwork, build_conflist
from ..etcd.access import Access
from ..etcd.client import Etcd
from ..state.fence import put_up_fence, take_down_fence
from ..subnets import check_network, parse_pools
from .claim import read_local_claim, read_machine_id


@dataclass(frozen=True)
class Settings:
    """The settings of one run. Networks are in CIDR notation."""

    pod_cidr: str
    """One network, or one of each family, separated by a comma."""
    node_bits: str
    """One number, or one for each network."""
    node: str
    """The node's name."""
    access: Access
    cluster: str
    out_dir: str
    """The directory of the conflist."""
    bridge: str
    mtu: int
    """Bytes of an IP packet."""
    cluster_cidrs: tuple[str, ...]
    """Networks that are not masqueraded, besides the pod network: the host overlay."""
    reserved_cidrs: tuple[str, ...]
    """Networks from which no node gets a subnet, such as the service CIDR."""
    pins: tuple[str, ...]
    """The subnets that the node must get, such as Kubernetes' ``node.spec.podCIDRs``; empty for any."""
    replaced: bool
    """This machine has replaced the machine that made the node's claim."""
    restore: bool
    """Claim again the subnets in the conflist: etcd has lost them."""
    datapath_type: str
    state_dir: str
    machine_id_file: str
    plugin_dirs: tuple[str, ...]
    """The directories in which to look for the chained plugins."""


@dataclass(frozen=True)
class Generated:
    """The result of a run."""

    path: str
    """The conflist."""
    cidrs: tuple[str, ...]
    epoch: int
    changed: bool
    """Whether the conflist was written; it is left alone if it has the wanted content already."""


def generate(settings: Settings) -> Generated:
    """Claim the node's subnets and write its conflist. A second run finds both as they should be.

    Raises EvioError: before it asks etcd, if a setting cannot be used; before it writes the conflist, if etcd refuses.
    """
    pools = parse_pools(settings.pod_cidr, settings.node_bits, names=("pod-cidr", "node-bits"))
    for cidr in settings.cluster_cidrs:
        check_network("cluster-cidr", cidr)
    refuse_competitors(settings.out_dir)
    request = Request(
        settings.node,
        read_machine_id(settings.machine_id_file),
        settings.pins,
        settings.replaced,
        read_local_claim(settings.out_dir),
        settings.restore,
    )
    with Etcd(settings.access) as etcd:
        try:
            outcome = Registry(etcd, settings.cluster).claim([request], pools, reserved=settings.reserved_cidrs)
        except LostClaimError as error:
            put_up_fence(settings.state_dir, error.lost[settings.node])
            raise
    take_down_fence(settings.state_dir)
    claim = outcome.claims[settings.node]
    network = PodNetwork(
        bridge=settings.bridge,
        subnets=subnets_of(claim),
        cluster_cidrs=tuple(dict.fromkeys((*settings.cluster_cidrs, *(pool.pod_cidr for pool in pools)))),
        mtu=settings.mtu,
        datapath_type=settings.datapath_type,
        epoch=claim.epoch,
        state_dir=settings.state_dir,
        chained=tuple(name for name in CHAINED_PLUGINS if _is_installed(name, settings.plugin_dirs)),
    )
    changed = write_conflist(build_conflist(network), settings.out_dir)
    return Generated(str(Path(settings.out_dir) / paths.CONFLIST_NAME), claim.cidrs, claim.epoch, changed)


def _is_installed(plugin: str, directories: tuple[str, ...]) -> bool:
    return any(os.path.isfile(os.path.join(directory, plugin)) for directory in directories)
