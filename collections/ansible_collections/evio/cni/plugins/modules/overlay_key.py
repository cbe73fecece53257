#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The node's WireGuard key as an Ansible resource: wireguard makes it; only its public half leaves the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: overlay_key
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
  evio.cni.overlay_key:
  register: evio_overlay_identity
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
from ..module_utils.errors import EvioError
from ..module_utils.wireguard import WireGuardError, create_key, read_public_key


class OverlayKey:
    """One run: look for the key once, act unless in check mode."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path: str = module.params["path"]
        self.exists = os.path.exists(self.path)

    def present(self) -> dict[str, Any]:
        changed = not self.exists or os.stat(self.path).st_mode & 0o777 != 0o600
        if self.exists:
            public_key: str | None = read_public_key(self.path)
            if changed and not self.module.check_mode:
                os.chmod(self.path, 0o600)
        elif self.module.check_mode:
            public_key = None
        else:
            public_key = create_key(self.path)
        return {"changed": changed, "public_key": public_key, "diff": self._diff("a key, mode 0600")}

    def absent(self) -> dict[str, Any]:
        if self.exists and not self.module.check_mode:
            try:
                os.unlink(self.path)
            except OSError as error:
                raise WireGuardError(f"cannot remove {self.path}: {error.strerror}") from error
        return {"changed": self.exists, "diff": self._diff(None)}

    def _diff(self, after: str | None) -> dict[str, Any]:
        before = f"a key, mode {os.stat(self.path).st_mode & 0o777:04o}" if os.path.exists(self.path) else None
        if not self.exists:
            before = None
        return {
            "before": {"key": before} if before else {},
            "after": {"key": after} if after else {},
            "before_header": self.path,
            "after_header": self.path,
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
