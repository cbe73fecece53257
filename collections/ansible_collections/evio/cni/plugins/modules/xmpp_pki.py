#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that issues a signalling server's certificate; pki_task does the work, for etcd_pki too."""

from __future__ import annotations

DOCUMENTATION = r"""
module: xmpp_pki
short_description: Issue the certificate of a signalling server
version_added: 0.1.0
description:
  - Creates a CA, which the nodes have to trust, and issues the server's certificate. For a site that has no certificate
    of its own for the server.
  - A certificate is issued again only if its CA, its names or its key do not fit, or if it expires within
    O(renew_days) days.
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
  directory:
    description: Directory of the certificates.
    type: path
    default: /etc/prosody/evio-pki
  domain:
    description: The server's domain.
    type: str
    required: true
  names:
    description: Other names and addresses under which nodes reach the server.
    type: list
    elements: str
    default: []
  group:
    description: Group of the server's process. It may read the server's key.
    type: str
    default: prosody
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
- name: Issue the signalling server's certificate
  evio.cni.xmpp_pki:
    domain: xmpp.example
    names: [198.51.100.11]
"""

RETURN = r"""
issued:
  description: The certificates that were issued in this run, by their names in O(directory) without suffix.
  returned: success
  type: list
  elements: str
  sample: [ca, server]
ca_cert:
  description: The CA's certificate in PEM. Null in check mode if there is no CA yet.
  returned: success
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.atomic_file import read_text
from ..module_utils.module_runner import Module, run_module
from ..module_utils.paths import XMPP_PKI_DIR
from ..module_utils.pki import RENEW_DAYS
from ..module_utils.pki_layout import XMPP
from ..module_utils.pki_task import PkiTask


class XmppPki(PkiTask):
    """One run over the signalling server's certificate; also returns the CA's, for the nodes."""

    def __init__(self, module: Module) -> None:
        super().__init__(module, XMPP, module.params["domain"], module.params["names"])

    def run(self) -> dict[str, Any]:
        result = super().run()
        return {**result, "ca_cert": read_text(Path(self.directory) / f"{XMPP.ca}.crt")}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": XMPP_PKI_DIR},
            "domain": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "group": {"type": "str", "default": "prosody"},
            "renew_days": {"type": "int", "default": RENEW_DAYS},
            "renew_all": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    run_module(module, XmppPki)


if __name__ == "__main__":
    main()
