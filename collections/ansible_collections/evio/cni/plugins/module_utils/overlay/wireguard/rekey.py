# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a node changes to its next WireGuard key, once all others accept it: the work of the module wireguard_rekey.

A node has one private key, so it changes for all others at once. The agents do what has to be done in that moment
(path_selection); here are the steps before and after it, each of which can be repeated.
"""

from __future__ import annotations

import time
from typing import Any

from ...differences import Differences
from ...module_runner import Module
from ..endpoint import OverlayError
from ..state import DIRECT, OverlayState, read_state
from .agent_files import AgentFiles
from .config import OverlayConfig, digest_of_keys, with_key
from .device import next_key_path, read_public_key, replace_key
from .member import PENDING_KEY

POLL_SECONDS = 0.1

ACCEPTED = "accepted"
CHANGED = "changed"
"""What the module is to see to: that this node accepts the next keys of the others, or that it has its own."""


class WireguardRekey:
    """One run: look at the agent, and with CHANGED put the next key into the place of the key."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        self.files = AgentFiles(config=self.params["config"], key=self.params["path"], state=self.params["state_file"])

    def run(self) -> dict[str, Any]:
        config = self.files.load_config()
        key = read_public_key(self.files.key)
        wanted = self._next_key(config, key) if self.params["state"] == CHANGED else key
        differences = Differences()
        differences.compare("public key", wanted, key)
        if not self.check_mode:
            self._refuse_nodes_without_keys(self._await_agent(config))
            if differences.changed:
                self._change(config)
        return {**differences.result(), "public_key": wanted}

    def _next_key(self, config: OverlayConfig, key: str) -> str:
        """Return the key to which the node changes; the key that it has if the others were told of no other."""
        if config.next_public_key is None and self.check_mode:
            # The task that would have told them has changed nothing.
            return PENDING_KEY
        return config.next_public_key or key

    def _change(self, config: OverlayConfig) -> None:
        found = read_public_key(next_key_path(self.files.key))
        if found != config.next_public_key:
            raise OverlayError(
                f"{next_key_path(self.files.key)} is the private key of {found}, and the other nodes were told of "
                f"{config.next_public_key}: run rotate.yml again from its beginning"
            )
        replace_key(self.files.key)
        self._await_agent(config)

    def _await_agent(self, config: OverlayConfig) -> OverlayState:
        """Wait until the agent works with the keys in the files; return its state. Raises OverlayError."""
        wanted = digest_of_keys(with_key(config, read_public_key(self.files.key)))
        deadline = time.monotonic() + self.params["timeout"]
        while True:
            state = read_state(self.files.state)
            if state is not None and state.is_fresh() and state.keys == wanted:
                return state
            if time.monotonic() >= deadline:
                raise OverlayError(self._reason(state))
            time.sleep(POLL_SECONDS)

    def _reason(self, state: OverlayState | None) -> str:
        seconds = f"{self.params['timeout']:g} s"
        if state is None or not state.is_fresh():
            return f"the overlay's agent has written no state for {seconds}; look at: journalctl -u evio-overlay"
        if state.fault:
            return f"the overlay's agent has not taken over the keys within {seconds}: {state.fault}"
        return (
            f"the overlay's agent has not taken over the keys within {seconds}; if it is of a former version, "
            "run bootstrap.yml first"
        )

    def _refuse_nodes_without_keys(self, state: OverlayState) -> None:
        """Raise OverlayError if a node that was not told of the next keys is up: the change would cut it off."""
        reached = [
            peer.name for peer in state.peers if peer.name in self.params["nodes_without_keys"] and peer.path == DIRECT
        ]
        if reached:
            raise OverlayError(
                f"{', '.join(reached)} was not told of the next keys, and is up: this node reaches it directly. A "
                "change of keys would cut it off. Run rotate.yml for all nodes once Ansible reaches it, or stop it"
            )
