# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Set up a node's CNI configuration without Ansible: claim its subnets in etcd, then write its conflist.

The program ``evio-config-gen`` reads the settings; ``claims.registry`` claims, and ``cni.conflist`` has the format.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..claims.model import LostClaimError, Request, subnets_of
from ..claims.registry import Registry
from ..cni.conf_dir import read_conflist, refuse_competitors, write_conflist
from ..cni.conflist import CHAINED_PLUGINS, PodNetwork, build_conflist
from ..etcd.access import Access, EtcdError
from ..etcd.client import Etcd
from ..host_root import below, resolve
from ..state.fence import put_up_fence, take_down_fence
from ..subnets import check_network, parse_pools
from .claim import read_local_claim, read_machine_id

_MOUNT = "in a container, mount the host's directories of CNI plugins at the same paths, or below --host-root"


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
    keep: bool
    """Keep the present configuration if etcd cannot be asked."""
    datapath_type: str
    state_dir: str
    machine_id_file: str
    plugin_dirs: tuple[str, ...]
    """The host's directories in which to look for the chained plugins."""
    host_root: str = "/"
    """The directory below which the host's ``plugin_dirs``, and what links in them lead to, are mounted."""


@dataclass(frozen=True)
class Generated:
    """The result of a run."""

    path: str
    """The conflist."""
    cidrs: tuple[str, ...]
    epoch: int
    changed: bool
    """Whether the conflist was written; it is left alone if it has the wanted content already."""
    warnings: tuple[str, ...] = ()
    """Sentences about chained plugins that the host may or may not have, or about an etcd that could not be asked."""


def generate(settings: Settings) -> Generated:
    """Claim the node's subnets and write its conflist. A second run finds both as they should be.

    Raises EvioError: before it asks etcd, if a setting cannot be used; before it writes the conflist, if etcd refuses.
    """
    pools = parse_pools(settings.pod_cidr, settings.node_bits, names=("pod-cidr", "node-bits"))
    for cidr in settings.cluster_cidrs:
        check_network("cluster-cidr", cidr)
    refuse_competitors(settings.out_dir)
    path = str(Path(settings.out_dir) / paths.CONFLIST_NAME)
    present = read_local_claim(settings.out_dir)
    machine_id = read_machine_id(settings.machine_id_file)
    request = Request(settings.node, machine_id, settings.pins, settings.replaced, present, settings.restore)
    with Etcd(settings.access) as etcd:
        try:
            outcome = Registry(etcd, settings.cluster).claim([request], pools, reserved=settings.reserved_cidrs)
        except LostClaimError as error:
            put_up_fence(settings.state_dir, error.lost[settings.node])
            raise
        except EtcdError as error:
            if present is None or not settings.keep:
                raise
            return Generated(path, present.cidrs, present.epoch, False, (f"{error}; the configuration stays as it is",))
    take_down_fence(settings.state_dir)
    claim = outcome.claims[settings.node]
    chained, warnings = _chained_plugins(settings)
    routed = (*pools, *outcome.former)
    network = PodNetwork(
        bridge=settings.bridge,
        subnets=subnets_of(claim, pools, present),
        cluster_cidrs=tuple(dict.fromkeys((*settings.cluster_cidrs, *(pool.pod_cidr for pool in routed)))),
        mtu=settings.mtu,
        datapath_type=settings.datapath_type,
        epoch=claim.epoch,
        state_dir=settings.state_dir,
        chained=chained,
    )
    changed = write_conflist(build_conflist(network), settings.out_dir)
    return Generated(path, claim.cidrs, claim.epoch, changed, tuple(warnings))


def _chained_plugins(settings: Settings) -> tuple[tuple[str, ...], list[str]]:
    """Return the plugins to chain, and one sentence for each that is chained or left out although it is not clear why.

    In a container, links of the host can lead to directories that are not mounted, so a plugin that cannot be seen may
    be installed. A plugin that the conflist has is never dropped: pods would lose their host ports.
    """
    configured, chained, warnings = _configured_plugins(settings.out_dir), [], []
    for name in CHAINED_PLUGINS:
        paths_of = [os.path.join(directory, name) for directory in settings.plugin_dirs]
        if any(os.path.isfile(resolve(settings.host_root, path)) for path in paths_of):
            chained.append(name)
            continue
        links = [path for path in paths_of if os.path.islink(below(settings.host_root, path))]
        problem = (
            f"{links[0]} is a link to {os.readlink(below(settings.host_root, links[0]))}, which is not there"
            if links
            else f"it is in none of {', '.join(settings.plugin_dirs)}"
        ) + (f" (looked for below {settings.host_root})" if settings.host_root != "/" else "")
        if name in configured:
            chained.append(name)
            warnings.append(f"{name} is still chained, as in the present conflist, but {problem}; {_MOUNT}")
        elif links:
            warnings.append(f"{name} is not chained: {problem}; {_MOUNT}")
    return tuple(chained), warnings


def _configured_plugins(out_dir: str) -> set[str]:
    """Return the types of the plugins in the present conflist, which read_local_claim has checked."""
    text = read_conflist(out_dir)
    plugins = json.loads(text)["plugins"] if text is not None else ()
    return {str(plugin.get("type")) for plugin in plugins if isinstance(plugin, dict)}
