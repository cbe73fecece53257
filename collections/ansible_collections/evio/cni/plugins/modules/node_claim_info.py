#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which machine a node is and what it is set up with; the library's node_claim reads it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_claim_info
short_description: Which machine a node is, and which subnets it is set up with
version_added: 0.1.0
description:
  - Reads what M(evio.cni.node_subnet) needs to know of a node from that node's own files.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  conf_dir:
    description: The directory that the container runtime reads its CNI configuration from.
    type: path
    default: /etc/cni/net.d
"""

EXAMPLES = r"""
- name: Read which machine this is, and which subnets it is set up with
  evio.cni.node_claim_info:
  register: node_claim
"""

RETURN = r"""
machine_id:
  description: The content of C(/etc/machine-id).
  returned: success
  type: str
  sample: 3f0d5c2f8f0c4a2f9d8d5cf1a3f3a6b1
configured:
  description: The subnets of the node's C(10-evio.conflist) and the epoch of their claim; null where there is none yet.
  returned: success
  type: dict
  sample:
    cidrs: [10.244.0.0/24]
    epoch: 4
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.errors import EvioError
from ..module_utils.node.claim import read_local_claim, read_machine_id


def main() -> None:
    module = AnsibleModule(
        argument_spec={"conf_dir": {"type": "path", "default": paths.CNI_CONF_DIR}},
        supports_check_mode=True,
    )
    try:
        machine_id, configured = read_machine_id(), read_local_claim(module.params["conf_dir"])
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False, machine_id=machine_id, configured=asdict(configured) if configured is not None else None
    )


if __name__ == "__main__":
    main()
