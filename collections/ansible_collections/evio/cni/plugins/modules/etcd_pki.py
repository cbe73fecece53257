#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""etcd's certificates as an Ansible resource; the library's pki makes them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_pki
short_description: The certificates of an etcd that no kubeadm has set up
version_added: 0.1.0
description:
  - Makes a CA and issues the certificates that etcd and its clients show each other, under the names and paths that
    kubeadm gives them. What is there and good stays.
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
requirements:
  - python3-cryptography
options:
  directory:
    description: Where the certificates are.
    type: path
    default: /etc/kubernetes/pki
  name:
    description: The member's name.
    type: str
    required: true
  addresses:
    description: The addresses under which it is reached, besides the loopback's.
    type: list
    elements: str
    default: []
  group:
    description: The group that may read etcd's own keys, which etcd runs in.
    type: str
"""

EXAMPLES = r"""
- name: Make etcd's certificates
  evio.cni.etcd_pki:
    name: node1
    addresses: [10.10.0.1]
    group: etcd
"""

RETURN = r"""
issued:
  description: The certificates that were issued now, by their paths in O(directory) without suffix.
  returned: success
  type: list
  elements: str
"""

import grp

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import EvioError
from ..module_utils.pki import PKI_DIR, issue, outdated


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": PKI_DIR},
            "name": {"type": "str", "required": True},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "group": {"type": "str"},
        },
        supports_check_mode=True,
    )
    directory, name, addresses = (module.params[key] for key in ("directory", "name", "addresses"))
    try:
        stale = outdated(directory, name, addresses)
        if stale and not module.check_mode:
            issue(directory, name, addresses, key_group=_group(module))
    except EvioError as error:
        module.fail_json(msg=str(error))
    diff = {"before": {}, "after": dict.fromkeys(stale, "issued")}
    module.exit_json(changed=bool(stale), issued=stale, diff=diff)


def _group(module: AnsibleModule) -> int | None:
    name = module.params["group"]
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        module.fail_json(msg=f"group: {name!r} is no group of this host; the package etcd-server makes it")
        raise


if __name__ == "__main__":
    main()
