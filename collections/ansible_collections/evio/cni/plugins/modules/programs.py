#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The programs on a node as an Ansible resource; how they lie on the host is the subject of installation.

The archive stays on the control machine until the node turns out to need it: the action plugin of the same name asks
first with the archive's digest alone, and sends the file only then.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: programs
short_description: The evio programs on a node, and the CNI plugins they work with
version_added: 0.1.0
description:
  - Installs the CNI plugin C(evio) and the configuration generator C(evio-config-gen), byte-compiled for the node's own
    Python, and switches to them in one step. Running plugins keep the version they started with.
  - Links CNI plugins of the distribution into the container runtime's directory, where nothing of that name is there.
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
  src:
    description: The archive on the control machine, as C(make plugin) makes it.
    type: path
    required: true
  digest:
    description: The archive's SHA-256. Set by the action plugin.
    type: str
  sent:
    description: Says that O(src) is the archive on the node. Set by the action plugin.
    type: bool
    default: false
  bin_dir:
    description: Where the container runtime looks for plugins.
    type: path
    default: /opt/cni/bin
  lib_dir:
    description: Where the programs' code goes, one directory a version.
    type: path
    default: /opt/cni/lib
  links:
    description: Names of CNI plugins of the distribution that are linked into O(bin_dir).
    type: list
    elements: str
    default: []
  links_dir:
    description: Where the distribution has them.
    type: path
    default: /usr/lib/cni
"""

EXAMPLES = r"""
- name: Install the evio programs
  evio.cni.programs:
    src: evio-programs.zip
    links: [host-local, loopback, portmap, bandwidth]
"""

RETURN = r"""
version:
  description: The version that is installed now, named by its content.
  returned: success
  type: str
linked:
  description: The plugins that were linked now.
  returned: success
  type: list
  elements: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import paths
from ..module_utils.errors import EvioError
from ..module_utils.programs.installation import PROGRAMS, install, is_installed, version_of


def missing_links(module: AnsibleModule) -> list[str]:
    """Names that are to be linked and are not in bin_dir; what is there, ours or not, stays."""
    bin_dir = module.params["bin_dir"]
    return [name for name in module.params["links"] if not os.path.lexists(os.path.join(bin_dir, name))]


def link(module: AnsibleModule, names: list[str]) -> None:
    os.makedirs(module.params["bin_dir"], mode=0o755, exist_ok=True)
    for name in names:
        target = os.path.join(module.params["links_dir"], name)
        if not os.path.isfile(target):
            module.fail_json(msg=f"{target} is not there to be linked; install the package containernetworking-plugins")
        os.symlink(target, os.path.join(module.params["bin_dir"], name))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "digest": {"type": "str"},
            "sent": {"type": "bool", "default": False},
            "bin_dir": {"type": "path", "default": paths.CNI_BIN_DIR},
            "lib_dir": {"type": "path", "default": paths.CNI_LIB_DIR},
            "links": {"type": "list", "elements": "str", "default": []},
            "links_dir": {"type": "path", "default": "/usr/lib/cni"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not params["digest"]:
        module.fail_json(
            msg="digest is not set: the module is run by its action plugin, which comes with the collection"
        )
    directories: dict[str, Any] = {"bin_dir": params["bin_dir"], "lib_dir": params["lib_dir"]}
    version = version_of(params["digest"])
    is_current = is_installed(version, **directories)
    links = missing_links(module)
    if not is_current and not module.check_mode and not params["sent"]:
        module.exit_json(changed=False, wants_archive=True)
    if not module.check_mode:
        try:
            if not is_current:
                with open(params["src"], "rb") as stream:
                    install(stream.read(), **directories)
        except EvioError as error:
            module.fail_json(msg=str(error))
        link(module, links)
    before = dict.fromkeys(PROGRAMS, version if is_current else None) | dict.fromkeys(links)
    after = dict.fromkeys(PROGRAMS, version) | {name: os.path.join(params["links_dir"], name) for name in links}
    module.exit_json(
        changed=not is_current or bool(links), version=version, linked=links, diff={"before": before, "after": after}
    )


if __name__ == "__main__":
    main()
