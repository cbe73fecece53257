# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The answer of one node, from which the cluster is put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NodeAnswer:
    """What Ansible has got of a node."""

    name: str
    """Its name in the inventory."""
    status: Mapping[str, Any] | None
    """Result of the module node_status_info; None if there is none."""
    failure: str | None = None
    """Why there is none."""
    site: str = ""
    """The site's name in the inventory; empty where the inventory has none."""
    public_endpoint: str = ""
    """The node's public endpoint in the inventory."""
