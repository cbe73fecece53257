#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node's WireGuard key as an Ansible resource: wireguard makes it; only its public half leaves the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wireguard_key
short_description: The WireGuard key of a node
version_added: 0.1.0
description:
  - Makes the node's private key if there is none, readable by root alone, and returns the public key.
  - The private key never leaves the node.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
    details: A key that does not exist yet has no public half, which is then null.
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - wireguard-tools
options:
  path:
    description: The private key's file.
    type: path
    default: /etc/evio/wireguard.key
  state:
    description: Whether there is a key. Without one the node has left the overlay.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Have a WireGuard key on the node
  evio.cni.wireguard_key:
  register: wireguard_key
"""

RETURN = r"""
public_key:
  description: The public key in base64; null in check mode where there is no key yet.
  returned: O(state=present)
  type: str
  sample: n5dWnGdJBn9SfLdhtgKL5rSGMVXxM9byDVkkKQQF72I=
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.differences import Differences
from ..module_utils.errors import EvioError
from ..module_utils.overlay.wireguard.device import WireGuardError, create_key, read_public_key

MODE = 0o600


class OverlayKey:
    """One run: look for the key once, act unless in check mode."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path: str = module.params["path"]
        self.mode = os.stat(self.path).st_mode & 0o777 if os.path.exists(self.path) else None

    def present(self) -> dict[str, Any]:
        public_key = None
        if self.mode is not None:
            public_key = read_public_key(self.path)
        if not self.module.check_mode:
            public_key = create_key(self.path)
        return {**self._result(MODE), "public_key": public_key}

    def absent(self) -> dict[str, Any]:
        if self.mode is not None and not self.module.check_mode:
            try:
                os.unlink(self.path)
            except OSError as error:
                raise WireGuardError(f"cannot remove {self.path}: {error.strerror}") from error
        return self._result(None)

    def _result(self, mode: int | None) -> dict[str, Any]:
        differences = Differences()
        differences.compare("mode", *(None if m is None else f"{m:04o}" for m in (mode, self.mode)))
        return {
            "changed": differences.changed,
            "diff": {**differences.diff(), "before_header": self.path, "after_header": self.path},
        }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            # A path, not a secret: what is in the file never passes through Ansible.
            "path": {"type": "path", "default": paths.WIREGUARD_KEY, "no_log": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        key = OverlayKey(module)
        result = key.present() if module.params["state"] == "present" else key.absent()
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
