# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which node of which cluster this machine is, by what is written on it.

The inventory's view of all machines is compared in inventory/identities.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import paths
from ..atomic_file import read_text
from ..errors import EvioError

_MOST_BYTES = 1 << 20
"""Size above which a state file is not read: ours have a few kilobytes."""


class IdentityError(EvioError):
    """The identity that is written on this machine cannot be read."""


@dataclass(frozen=True)
class NodeIdentity:
    """What this machine says of itself. An empty string is what it does not say."""

    hostname: str
    machine_id: str
    """The content of /etc/machine-id, whatever it is (machine-id(5))."""
    node: str = ""
    """The name under which this machine was set up."""
    cluster: str = ""
    """The cluster that it was set up for."""

    def to_json(self) -> dict[str, str]:
        """Return the fields as a dictionary."""
        return asdict(self)


def read_identity(
    *,
    machine_id: str = paths.MACHINE_ID,
    identity_file: str = paths.NODE_IDENTITY,
    overlay_config: str = paths.OVERLAY_CONFIG,
) -> NodeIdentity:
    """Read what this machine says of itself, also where an earlier version set it up, which wrote no identity file.

    Raises IdentityError for a file that cannot be read or is not what we write.
    """
    written = _read_object(identity_file)
    overlay = _read_object(overlay_config)
    return NodeIdentity(
        os.uname().nodename,
        _read(machine_id).strip(),
        _name(identity_file, written, "node") or _name(overlay_config, overlay, "node"),
        _name(identity_file, written, "cluster"),
    )


def read_site_certificates(identity_file: str = paths.NODE_IDENTITY) -> list[str]:
    """Return the files and directories of certificates that the inventory names for this node. Raises IdentityError."""
    noted = _read_object(identity_file).get("certificates", [])
    if not isinstance(noted, list) or not all(isinstance(path, str) for path in noted):
        raise IdentityError(f"{identity_file}: certificates is not a list of paths; run bootstrap.yml, which writes it")
    return noted


def render_identity(node: str, cluster: str, certificates: Sequence[str] = ()) -> str:
    """Return the text of the identity file; ``certificates`` are those of ``read_site_certificates``."""
    noted = {"certificates": list(certificates)} if certificates else {}
    return json.dumps({**noted, "cluster": cluster, "node": node}, indent=2) + "\n"


def _read(path: str) -> str:
    try:
        if Path(path).exists() and Path(path).stat().st_size > _MOST_BYTES:
            raise IdentityError(f"{path} is larger than {_MOST_BYTES} bytes; it is not a file of evio.cni")
        return read_text(path) or ""
    except (OSError, UnicodeDecodeError) as error:
        raise IdentityError(f"cannot read {path}: {error}") from error


def _read_object(path: str) -> dict[str, Any]:
    text = _read(path)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IdentityError(f"{path} does not hold JSON: {error}; restore it, or remove the node first") from error
    if not isinstance(value, dict):
        raise IdentityError(f"{path} does not hold a JSON object; restore it, or remove the node first")
    return value


def _name(path: str, value: dict[str, Any], key: str) -> str:
    name = value.get(key, "")
    if not isinstance(name, str):
        raise IdentityError(f"{path}: {key} is not a string; restore the file, or remove the node first")
    return name
