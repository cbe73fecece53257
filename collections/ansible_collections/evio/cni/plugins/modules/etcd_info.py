#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A look at etcd before anything is changed; the library's etcd_health does it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_info
short_description: Whether etcd answers, and takes our certificate
version_added: 0.1.0
description:
  - Fails with one sentence where no member answers, where its certificate is not vouched for, where it refuses ours, or
    where it has no leader. Needs nothing but Python, and changes nothing.
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
  endpoints:
    description: URLs of etcd's members.
    type: list
    elements: str
    default: [https://127.0.0.1:2379]
  ca_cert:
    description: The certificate that vouches for etcd's.
    type: path
    default: /etc/kubernetes/pki/etcd/ca.crt
  client_cert:
    description: The certificate shown to etcd; empty for none.
    type: path
    default: /etc/kubernetes/pki/apiserver-etcd-client.crt
  client_key:
    description: Its key.
    type: path
    default: /etc/kubernetes/pki/apiserver-etcd-client.key
  timeout:
    description: Seconds that one member may take to answer.
    type: float
    default: 5.0
  wait:
    description: Seconds for which a failure is taken for an etcd that is about to start, and it is asked again.
    type: float
    default: 0.0
"""

EXAMPLES = r"""
- name: See that etcd answers
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

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import EvioError
from ..module_utils.etcd.health import await_health
from ..module_utils.etcd.options import access_of


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "endpoints": {"type": "list", "elements": "str", "default": ["https://127.0.0.1:2379"]},
            "ca_cert": {"type": "path", "default": "/etc/kubernetes/pki/etcd/ca.crt"},
            "client_cert": {"type": "path", "default": "/etc/kubernetes/pki/apiserver-etcd-client.crt"},
            "client_key": {"type": "path", "default": "/etc/kubernetes/pki/apiserver-etcd-client.key", "no_log": False},
            "timeout": {"type": "float", "default": 5.0},
            "wait": {"type": "float", "default": 0.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        members = await_health(access_of(params), params["wait"])
    except EvioError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, members=[asdict(member) for member in members])


if __name__ == "__main__":
    main()
