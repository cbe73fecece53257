# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From PodCIDR and NodeBits to a node's conflist without Ansible: claim in etcd, then write, as an init container does.

Who gets which subnet is the registry's subject, the file's shape conflist's; flags and environment the program's.
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
from ..errors import EvioError
from ..etcd.access import Access
from ..etcd.client import Etcd
from ..state.fence import put_up_fence, take_down_fence
from ..subnets import parse_pools, refuse_overlaps
from .claim import MACHINE_ID, read_local_claim, read_machine_id

PLUGIN_DIRS = (paths.CNI_BIN_DIR, "/usr/lib/cni")


@dataclass(frozen=True)
class Settings:
    """All that one run needs to know. Networks are in CIDR notation, ``mtu`` in bytes."""

    pod_cidr: str
    """One network, or one a family with a comma between them."""
    node_bits: str
    """One number, or one a network."""
    node: str
    access: Access
    cluster: str = "kubernetes"
    out_dir: str = paths.CNI_CONF_DIR
    bridge: str = "br-evio"
    mtu: int = 1420
    cluster_cidrs: tuple[str, ...] = ("10.10.0.0/16",)
    """Besides the pod network what is never masqueraded: the host overlay."""
    reserved_cidrs: tuple[str, ...] = ()
    """What no node is given: the service CIDR."""
    subnet: str = ""
    """The subnet that the node shall have and no other, as Kubernetes has it in ``node.spec.podCIDR``."""
    replaced: bool = False
    restore: bool = False
    """Claim again what the conflist has: etcd has lost it."""
    datapath_type: str = "system"
    state_dir: str = paths.STATE_DIR
    machine_id_file: str = MACHINE_ID
    plugin_dirs: tuple[str, ...] = PLUGIN_DIRS


@dataclass(frozen=True)
class Generated:
    """What a run has done."""

    path: str
    cidrs: tuple[str, ...]
    epoch: int
    changed: bool
    """Whether the file was written; it is not where it had this very content."""


def generate(settings: Settings) -> Generated:
    """Claim the node's subnets and write its conflist; a second run finds both as they are.

    Raises EvioError before etcd is asked for what cannot be used, and before the file is touched for what etcd refuses.
    """
    pools = parse_pools(settings.pod_cidr, settings.node_bits, names=("pod-cidr", "node-bits"))
    for cidr in settings.cluster_cidrs:
        refuse_overlaps({"cluster-cidr": cidr})
    refuse_competitors(settings.out_dir)
    request = Request(
        settings.node,
        read_machine_id(settings.machine_id_file),
        _pins(settings),
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


def read_password(path: str) -> str:
    """The first line of a file, so that a password is in no list of processes."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvioError(f"cannot read the password of etcd's user: {error}") from error
    if not lines or not lines[0]:
        raise EvioError(f"{path} holds no password on its first line")
    return lines[0]


def _pins(settings: Settings) -> tuple[str, ...]:
    return tuple(cidr.strip() for cidr in settings.subnet.split(",") if cidr.strip())


def _is_installed(plugin: str, directories: tuple[str, ...]) -> bool:
    return any(os.path.isfile(os.path.join(directory, plugin)) for directory in directories)
