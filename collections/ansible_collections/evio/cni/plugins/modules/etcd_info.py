#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that asks etcd for its health; the work is done by etcd/health."""

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_info
short_description: Check that etcd answers and accepts the client's certificate
version_added: 0.1.0
description:
  - Fails with a message that names the member and the reason if no member answers, if etcd's certificate is not signed
    by O(ca_cert), if etcd refuses O(client_cert), or if etcd has no leader.
  - Needs nothing but Python, and changes nothing.
notes:
  - O(user) and O(password) are not used, since etcd tells its health without them. They are options so that the
    defaults of the action group C(evio.cni.etcd) can be set for this module too.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.etcd
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  wait:
    description: Seconds for which the module asks again before it fails, for an etcd that is being started.
    type: float
    default: 0.0
"""

EXAMPLES = r"""
- name: Check that etcd answers
  evio.cni.etcd_info:
    endpoints: [https://127.0.0.1:2379]

- name: Wait for an etcd that was just started
  evio.cni.etcd_info:
    wait: 60
"""

RETURN = r"""
members:
  description: The members that have answered.
  returned: success
  type: list
  elements: dict
  sample:
    - endpoint: https://127.0.0.1:2379
      version: 3.4.23
      is_healthy: true
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.etcd.health import await_health
from ..module_utils.etcd.options import ETCD_OPTIONS, access_of
from ..module_utils.module_runner import Module, run_module


class EtcdInfo:
    """One run: ask every member, again and again until one is healthy or the time is over."""

    def __init__(self, module: Module) -> None:
        self.params = module.params

    def run(self) -> dict[str, Any]:
        members = await_health(access_of(self.params), self.params["wait"])
        return {"changed": False, "members": [asdict(member) for member in members]}


def main() -> None:
    module = AnsibleModule(
        argument_spec={**ETCD_OPTIONS, "wait": {"type": "float", "default": 0.0}},
        required_together=[("user", "password")],
        supports_check_mode=True,
    )
    run_module(module, EtcdInfo)


if __name__ == "__main__":
    main()
