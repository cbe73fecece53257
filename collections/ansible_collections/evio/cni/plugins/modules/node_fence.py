#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tells a node that its claim is lost; the library's fence is what it is told by."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_fence
short_description: Have a node take no new pods while its claim on its subnet is lost
version_added: 0.1.0
description:
  - Pods that run keep what they have. The CNI plugin refuses new ones (STATUS and ADD) and gives the reason.
  - M(evio.cni.cni_config) takes the fence down when it configures the node for a claim that holds.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  reason:
    description: Why the claim does not hold. Empty takes the fence down.
    type: str
    required: true
  state_dir:
    description: The state directory of the CNI plugin.
    type: path
    default: /var/lib/evio-cni
"""

EXAMPLES = r"""
- name: Refuse new pods on a node whose claim etcd has lost
  evio.cni.node_fence:
    reason: etcd has no claim of it
"""

RETURN = r"""
path:
  description: The file by which the node knows.
  returned: success
  type: str
  sample: /var/lib/evio-cni/.fence
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.errors import EvioError
from ..module_utils.state.fence import fence_file, put_up_fence, read_fence, take_down_fence


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "reason": {"type": "str", "required": True},
            "state_dir": {"type": "path", "default": paths.STATE_DIR},
        },
        supports_check_mode=True,
    )
    state_dir, wanted = module.params["state_dir"], module.params["reason"].strip()
    before = read_fence(state_dir) or ""
    if before != wanted and not module.check_mode:
        try:
            if wanted:
                put_up_fence(state_dir, wanted)
            else:
                take_down_fence(state_dir)
        except EvioError as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=before != wanted, path=fence_file(state_dir), diff={"before": before, "after": wanted})


if __name__ == "__main__":
    main()
