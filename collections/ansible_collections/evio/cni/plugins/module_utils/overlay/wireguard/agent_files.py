# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of the overlay's agent: where they are, reading them together, and noticing that they changed.

What is in them is config's subject, and state's for the state file.
"""

from __future__ import annotations

from dataclasses import dataclass

from ... import paths
from ...atomic_file import read_text
from ..endpoint import OverlayError
from ..fingerprint import Fingerprint, fingerprint
from .config import OverlayConfig, PodRoutes, parse_overlay, parse_pod_routes, with_key
from .device import read_public_key


@dataclass(frozen=True)
class AgentFiles:
    """The paths of the files that the agent reads and writes."""

    config: str = paths.OVERLAY_CONFIG
    pod_routes: str = paths.POD_ROUTES_CONFIG
    key: str = paths.WIREGUARD_KEY
    state: str = paths.OVERLAY_STATE

    def load(self) -> tuple[OverlayConfig, PodRoutes]:
        """Return the host overlay and the pod routes; no pod routes if their file is missing.

        While keys are rotated, the configuration has two keys of this node, and the key file says which one it has.
        Raises OverlayError if a file cannot work or the node's key is not a key in the configuration, and
        WireGuardError if the key cannot be read.
        """
        config = self.load_config()
        key = read_public_key(self.key)
        config = with_key(config, key)
        if key != config.public_key:
            raise OverlayError(
                f"{self.key} is the private key of {key}, but {self.config} and so the other nodes have "
                f"{config.public_key}: run the playbook again"
            )
        routes = _read(self.pod_routes)
        return config, parse_pod_routes(routes, self.pod_routes) if routes is not None else PodRoutes()

    def load_config(self) -> OverlayConfig:
        """Return the host overlay. Raises OverlayError if its file is missing or cannot work."""
        text = _read(self.config)
        if text is None:
            raise OverlayError(f"cannot read {self.config}: no such file; run the playbook")
        return parse_overlay(text, self.config)

    def fingerprint(self) -> tuple[Fingerprint, ...]:
        """Return a value that differs once one of the files that load() reads is replaced."""
        return tuple(fingerprint(path) for path in (self.config, self.pod_routes, self.key))


def _read(path: str) -> str | None:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise OverlayError(f"cannot read {path}: {error}") from error
