#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that restarts EdgeVPN.io and awaits its tunnels; overlay/edgevpn/service and agent look at it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edgevpn_service
short_description: Restart EdgeVPN.io, and wait until it is back
version_added: 0.1.0
description:
  - EdgeVPN.io does not sign in again after its signalling server was restarted, and tells nobody. This module restarts
    it if O(restart) is set, if one of O(files) is newer than its start, or if its sessions on the signalling server do
    not come within O(grace).
  - After a restart, waits until it has all sessions, and as many tunnels as before. A node is cut off from the others
    until then. Run the task with C(throttle=1), so that one node after another restarts.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.ovsdb
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details: With O(restart) the service is restarted each time.
options:
  restart:
    description: Whether to restart the service even if it has all sessions, because its configuration was changed.
    type: bool
    default: false
  files:
    description: Files that the service reads at its start only. Packages and runs that were killed change them too.
    type: list
    elements: path
    default: []
  grace:
    description: Seconds within which a service that was not restarted must have all sessions.
    type: float
    default: 10.0
  timeout:
    description: Seconds after a restart within which sessions and tunnels must be back.
    type: float
    default: 150.0
  config:
    description: EdgeVPN.io's configuration file.
    type: path
    default: /etc/opt/evio/config.json
  members:
    description: The file with the other nodes, which M(evio.cni.edgevpn_config) writes.
    type: path
    default: /etc/evio/edgevpn.json
"""

EXAMPLES = r"""
- name: Restart EdgeVPN.io, one node after another
  evio.cni.edgevpn_service:
    restart: true
  throttle: 1
"""

RETURN = r"""
reason:
  description: Why the service was restarted or, in check mode, would be restarted. Empty if it was not.
  returned: success
  type: str
  sample: it has 0 of 2 sessions on the signalling server
sessions:
  description: Sessions on the signalling server.
  returned: success
  type: int
tunnels:
  description: Other nodes to which there is a tunnel.
  returned: success
  type: list
  elements: str
"""

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.differences import Differences
from ..module_utils.module_runner import Module, run_module
from ..module_utils.overlay.edgevpn.agent import EdgeVpnFiles, observe
from ..module_utils.overlay.edgevpn.config import CONFIG_PATH
from ..module_utils.overlay.edgevpn.service import UNIT, EdgeVpnServiceError, restart_service
from ..module_utils.overlay.edgevpn.watch import Observation, sessions_of

POLL_SECONDS = 1.0


class EdgeVpnService:
    """One run: look, restart the service if it has to be, and wait until it is back."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.params = module.params
        self.files = EdgeVpnFiles(self.params["config"], self.params["members"])
        self.ovsdb = self.params["ovsdb"]

    def run(self) -> dict[str, Any]:
        before = self._wait(lambda seen: bool(self._change(seen)) or _is_signed_in(seen), self.params["grace"])
        reason = self._reason(before)
        after = before
        if reason and not self.module.check_mode:
            restart_service()
            had = {name for name, is_up in before.tunnels.items() if is_up}
            after = self._wait(lambda seen: _is_signed_in(seen) and had <= _tunnels(seen), self.params["timeout"])
            self._check(after, had)
        differences = Differences()
        differences.compare("service", "signed in", reason or "signed in")
        return {
            **differences.result(),
            "reason": reason,
            "sessions": after.sessions,
            "tunnels": sorted(_tunnels(after)),
        }

    def _reason(self, seen: Observation) -> str:
        """Return why the service has to be restarted; empty if it need not be."""
        return self._change(seen) or ("" if _is_signed_in(seen) else f"it has {sessions_of(seen)}")

    def _change(self, seen: Observation) -> str:
        """Return what was changed since the service was started; empty if nothing was."""
        if self.params["restart"]:
            return "its configuration was changed"
        for path in self.params["files"]:
            with contextlib.suppress(FileNotFoundError):
                # The time of the change of the inode: a package's files have the times of their making.
                if time.time() - os.stat(path).st_ctime < seen.running_for:
                    return f"{path} is newer than its start"
        return ""

    def _wait(self, is_enough: Callable[[Observation], bool], seconds: float) -> Observation:
        """Look until it is enough or the seconds have passed; return what was seen last."""
        deadline = time.monotonic() + seconds
        while True:
            seen = observe(*self.files.load(), ovsdb=self.ovsdb)
            if is_enough(seen) or time.monotonic() >= deadline:
                return seen
            time.sleep(POLL_SECONDS)

    def _check(self, seen: Observation, had: set[str]) -> None:
        """Raise EdgeVpnServiceError without a session; warn if a tunnel has not come back."""
        if not seen.is_running:
            raise EdgeVpnServiceError(f"{UNIT} does not run after its restart; look at: journalctl -u evio")
        if not _is_signed_in(seen):
            raise EdgeVpnServiceError(
                f"{UNIT} has {sessions_of(seen)} {self.params['timeout']:g} s after its restart; look at "
                "/var/log/evio/signal.log, and whether evio_xmpp_host, its certificate and the accounts are right"
            )
        missing = sorted(had - _tunnels(seen))
        if missing:
            self.module.warn(
                f"{UNIT} was restarted, and has no tunnel to {', '.join(missing)} yet; nodes leave out a node whose "
                "tunnel was younger than 3 minutes for up to 4 minutes"
            )


def _is_signed_in(seen: Observation) -> bool:
    return seen.is_running and seen.has_all_sessions


def _tunnels(seen: Observation) -> set[str]:
    return {name for name, is_up in seen.tunnels.items() if is_up}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "restart": {"type": "bool", "default": False},
            "files": {"type": "list", "elements": "path", "default": []},
            "grace": {"type": "float", "default": 10.0},
            "timeout": {"type": "float", "default": 150.0},
            "config": {"type": "path", "default": CONFIG_PATH},
            "members": {"type": "path", "default": paths.EDGEVPN_MEMBERS},
            "ovsdb": {"type": "str", "default": paths.OVSDB},
        },
        supports_check_mode=True,
    )
    run_module(module, EdgeVpnService)


if __name__ == "__main__":
    main()
