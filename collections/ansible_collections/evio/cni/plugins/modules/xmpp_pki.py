#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A signalling server's certificate as an Ansible resource; the library's pki makes it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: xmpp_pki
short_description: The certificate of a signalling server, where the site has none
version_added: 0.1.0
description:
  - Makes a CA, which nodes are to trust, and issues the server's certificate. What is there and good stays.
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
    default: /etc/prosody/evio-pki
  domain:
    description: The server's domain.
    type: str
    required: true
  names:
    description: Other names and addresses under which nodes reach it.
    type: list
    elements: str
    default: []
  group:
    description: The group that may read the server's key.
    type: str
    default: prosody
"""

EXAMPLES = r"""
- name: Make the signalling server's certificate
  evio.cni.xmpp_pki:
    domain: xmpp.example
    names: [198.51.100.11]
"""

RETURN = r"""
issued:
  description: The certificates that were issued now, by their names in O(directory) without suffix.
  returned: success
  type: list
  elements: str
ca_cert:
  description: The CA's certificate in PEM; null in check mode where there is none yet.
  returned: success
  type: str
"""

import grp
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.errors import EvioError
from ..module_utils.pki import XMPP, issue, outdated


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/prosody/evio-pki"},
            "domain": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "group": {"type": "str", "default": "prosody"},
        },
        supports_check_mode=True,
    )
    directory, domain, names = (module.params[key] for key in ("directory", "domain", "names"))
    try:
        stale = outdated(directory, domain, names, XMPP)
        if stale and not module.check_mode:
            issue(directory, domain, names, XMPP, key_group=grp.getgrnam(module.params["group"]).gr_gid)
    except KeyError:
        module.fail_json(
            msg=f"group: {module.params['group']!r} is no group of this host; the package prosody makes it"
        )
    except EvioError as error:
        module.fail_json(msg=str(error))
    path = Path(directory) / f"{XMPP.ca}.crt"
    module.exit_json(
        changed=bool(stale),
        issued=stale,
        ca_cert=path.read_text(encoding="ascii") if path.exists() else None,
        diff={"before": {}, "after": dict.fromkeys(stale, "issued")},
    )


if __name__ == "__main__":
    main()
