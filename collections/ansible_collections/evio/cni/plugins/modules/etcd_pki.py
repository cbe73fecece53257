#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that issues etcd's certificates; pki_task does the work, for xmpp_pki too."""

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_pki
short_description: Issue the certificates of an etcd that was not set up by kubeadm
version_added: 0.1.0
description:
  - Creates a CA and issues the certificates of etcd and of etcd's clients, under the names and paths that kubeadm uses.
  - A certificate is issued again only if its CA, its names or its key do not fit, or if it expires within
    O(renew_days) days.
  - With O(state=absent), removes the files of these names, and no other file of O(directory).
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Names only. The certificates' content is not shown.
  idempotent:
    support: partial
    details: With O(renew_all), each run issues all certificates again.
requirements:
  - python3-cryptography
options:
  state:
    description:
      - V(absent) removes CA, certificates and keys, and O(directory) if nothing else is in it. Those in
        C(/etc/kubernetes/pki) are kubeadm's, and stay.
    type: str
    choices: [present, absent]
    default: present
  directory:
    description: Directory of the certificates.
    type: path
    default: /etc/kubernetes/pki
  adopted_directory:
    description:
      - Directory of an earlier installation. If O(directory) has no CA and this directory has, its CA, certificates and
        keys are copied. They also stay where they are, and are kept valid there as long as the CA is the same.
    type: path
  name:
    description: Name of the etcd member. Required with O(state=present).
    type: str
  addresses:
    description: Addresses under which the member is reached, besides the loopback addresses.
    type: list
    elements: str
    default: []
  users:
    description: Users of etcd whose client certificates O(state=absent) removes, too.
    type: list
    elements: str
    default: []
  group:
    description: Group of the etcd process. It may read the keys of etcd itself. Only root reads them if it is not set.
    type: str
  renew_days:
    description: >-
      A certificate that expires in fewer days is issued again. From 1 to 330; certificates are valid for a year.
    type: int
    default: 90
  renew_all:
    description: >-
      Whether to issue all certificates again, with new keys, whatever their age, in each run. A CA that is there stays.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Issue etcd's certificates
  evio.cni.etcd_pki:
    name: node1
    addresses: [10.10.0.1]
    group: etcd

- name: Remove etcd's certificates
  evio.cni.etcd_pki:
    state: absent
    directory: /etc/evio-etcd
    users: [evio-cni]
"""

RETURN = r"""
issued:
  description: The certificates that were issued in this run, by their paths in O(directory) without suffix.
  returned: when O(state=present)
  type: list
  elements: str
  sample: [etcd/server, etcd/peer]
removed:
  description: The paths that were removed or, in check mode, would be removed.
  returned: when O(state=absent)
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.differences import Differences
from ..module_utils.module_runner import Module, run_module
from ..module_utils.path_removal import PathRemoval
from ..module_utils.pki import PKI_DIR, RENEW_DAYS, removable_files
from ..module_utils.pki_layout import ETCD
from ..module_utils.pki_task import PkiTask


class EtcdPki(PkiTask):
    """One run over the certificates of etcd and of etcd's clients."""

    def __init__(self, module: Module) -> None:
        super().__init__(module, ETCD, module.params["name"], module.params["addresses"])

    def run(self) -> dict[str, Any]:
        return self._remove() if self.module.params["state"] == "absent" else super().run()

    def _remove(self) -> dict[str, Any]:
        directory = self.directory.rstrip("/")
        files = removable_files(directory, self.module.params["users"])
        removal = PathRemoval(files=files, empty_directories=[f"{directory}/etcd", directory] if files else [])
        differences = Differences()
        for path in removal.found:
            differences.compare(path, None, "present")
        if not self.module.check_mode:
            removal.apply()
        return {**differences.result(), "removed": removal.found}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "directory": {"type": "path", "default": PKI_DIR},
            "adopted_directory": {"type": "path"},
            "name": {"type": "str"},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "users": {"type": "list", "elements": "str", "default": []},
            "group": {"type": "str"},
            "renew_days": {"type": "int", "default": RENEW_DAYS},
            "renew_all": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ["name"])],
        supports_check_mode=True,
    )
    run_module(module, EtcdPki)


if __name__ == "__main__":
    main()
