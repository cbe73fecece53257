#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that issues a client certificate for one etcd user; pki_task does the work, as for etcd_pki."""

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_client_certificate
short_description: Issue the client certificate of an etcd user
version_added: 0.1.0
description:
  - Issues a client certificate with the user's name as its common name, signed by etcd's CA, which must be on the host.
  - The certificate is issued again only if its CA or its key do not fit, or if it expires within O(renew_days) days.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Names only. The certificate's content is not shown.
  idempotent:
    support: partial
    details: With O(renew_all), each run issues all certificates again.
requirements:
  - python3-cryptography
options:
  directory:
    description: Directory with etcd's CA, C(etcd/ca.crt) and C(etcd/ca.key). The certificate is put there.
    type: path
    default: /etc/kubernetes/pki
  name:
    description: The etcd user's name.
    type: str
    default: evio-cni
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
- name: Issue the client certificate of the DaemonSet
  evio.cni.etcd_client_certificate:
"""

RETURN = r"""
issued:
  description: The certificates that were issued in this run, by their paths in O(directory) without suffix.
  returned: success
  type: list
  elements: str
  sample: [evio-cni-etcd-client]
ca_cert:
  description: Path of the CA's certificate.
  returned: success
  type: str
client_cert:
  description: Path of the client certificate.
  returned: success
  type: str
client_key:
  description: Path of its private key, which only root can read.
  returned: success
  type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.module_runner import Module, run_module
from ..module_utils.names import is_node_name
from ..module_utils.pki import PKI_DIR, RENEW_DAYS, PkiError
from ..module_utils.pki_layout import client_layout
from ..module_utils.pki_task import PkiTask


class EtcdClientCertificate(PkiTask):
    """One run over the certificate of one client."""

    def __init__(self, module: Module) -> None:
        name = module.params["name"]
        if not is_node_name(name):
            raise PkiError(f"name: {name!r} cannot be the name of a file; use letters, digits, '-', '_' and '.'")
        super().__init__(module, client_layout(name), name, [])
        base = os.path.join(self.directory, self.layout.ca)
        if not os.path.exists(f"{base}.crt"):
            raise PkiError(f"{base}.crt is not there: give the directory with etcd's CA, on a host that has it")

    def run(self) -> dict[str, Any]:
        base = os.path.join(self.directory, self.layout.leaves[0].path)
        ca_cert = os.path.join(self.directory, f"{self.layout.ca}.crt")
        return {**super().run(), "ca_cert": ca_cert, "client_cert": f"{base}.crt", "client_key": f"{base}.key"}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": PKI_DIR},
            "name": {"type": "str", "default": "evio-cni"},
            "renew_days": {"type": "int", "default": RENEW_DAYS},
            "renew_all": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    run_module(module, EtcdClientCertificate)


if __name__ == "__main__":
    main()
