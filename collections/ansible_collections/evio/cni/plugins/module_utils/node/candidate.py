# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is on a host before it becomes a node, or is set up again: which node it is, and what is in the way."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from .. import paths
from ..atomic_file import read_text
from ..claims.model import ClaimError
from ..cni.directories import Directories, check_directories
from ..errors import EvioError
from ..kernel.networks_in_use import networks_in_use
from ..overlay.conflicts import find_conflict, without_single_addresses
from ..overlay.edgevpn.config import CONFIG_PATH
from ..overlay.edgevpn.naming import configured_bridges
from ..overlay.wireguard.config import overlay_networks
from .claim import read_local_claim


def overlay_conflict(
    host_cidr: str,
    pod_cidrs: list[str],
    service_cidrs: Iterable[str],
    own_interfaces: Iterable[str],
    *,
    edgevpn_config: str = CONFIG_PATH,
    edgevpn_members: str = paths.EDGEVPN_MEMBERS,
) -> str | None:
    """Return in words which network of this host is inside the overlay's networks or that of Services; None if none is.

    ``own_interfaces`` belong to the overlay, and so do the bridges of EdgeVPN.io as this collection has configured it,
    also those of overlays that have other ids now. Addresses of Services that the host has itself, as kube-proxy with
    IPVS gives them to it, are no conflict. Raises OverlayError for networks that are none.
    """
    networks = overlay_networks(host_cidr, pod_cidrs)
    own = [*own_interfaces, *_edgevpn_bridges(edgevpn_config, edgevpn_members)]
    uses = networks_in_use()
    conflict = find_conflict(uses, networks, own)
    for cidr in service_cidrs:
        services = {"the network of Services (evio_service_network)": cidr}
        conflict = conflict or find_conflict(without_single_addresses(uses), services, own)
    return conflict


def configured_claim(conf_dir: str) -> tuple[dict[str, Any] | None, str | None]:
    """Return the subnets and the epoch that the host is set up with, or None; and why they cannot be read, or None."""
    try:
        claim = read_local_claim(conf_dir)
    except ClaimError as error:
        return None, str(error)
    return None if claim is None else asdict(claim), None


def cni_directories(conf_dir: str, bin_dir: str, cri_socket: str) -> tuple[Directories, str | None]:
    """Return what ``check_directories`` finds, and what it refuses, or None."""
    try:
        return check_directories(conf_dir, bin_dir, cri_socket=cri_socket), None
    except EvioError as error:
        return Directories(), str(error)


def _edgevpn_bridges(config: str, members: str) -> list[str]:
    try:
        if read_text(members) is None:
            # A file that EdgeVPN.io itself or another program has written.
            return []
        return configured_bridges(json.loads(read_text(config) or "{}"))
    except (OSError, ValueError, AttributeError, TypeError):
        return []
