# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Name the socket over which ssh keeps its connection by inventory and host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: control_path
short_description: Give each host of each inventory an ssh control socket of its own
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Ansible names ssh's control socket by address, port and user. Two hosts can have the same, as behind two jump hosts,
    or in two inventories; then a task for one host runs on the other.
  - This plugin sets C(ansible_control_path) of every host, from the directory of its inventory and its name. A variable
    with a template cannot do that, because in a delegated task it is evaluated for the delegating host.
  - Enable it in C(ansible.cfg) with C(vars_plugins_enabled = host_group_vars, evio.cni.control_path). Variables of the
    inventory override it only if they come later in that list.
options: {}
"""

import hashlib
import os
from functools import cache
from typing import Any

from ansible.inventory.host import Host
from ansible.plugins.vars import BaseVarsPlugin

_DIGITS = 8
"""Few, because a socket's path may have 108 bytes (unix(7)): ssh's C(%C) takes 40, its temporary suffix 17."""


class VarsModule(BaseVarsPlugin):
    """Ansible calls this plugin for each directory of inventories and playbooks, with the hosts and groups.

    It does so for each host and task: of a cluster of 80 nodes, tens of thousands of times in a run.
    """

    is_stateless = True
    """Lets Ansible keep the plugin, instead of looking for it and loading it for each call."""

    def get_vars(self, loader: Any, path: str, entities: Any, cache: bool = True) -> dict[str, str]:
        """Return C(ansible_control_path) of a host; nothing for a group."""
        for entity in entities if isinstance(entities, list) else [entities]:
            if isinstance(entity, Host):
                return {"ansible_control_path": control_path(entity.vars.get("inventory_dir") or path, entity.name)}
        return {}


@cache
def control_path(inventory_dir: str, host: str) -> str:
    """Return the socket's path below Ansible's control_path_dir, which replaces C(%(directory)s).

    ssh replaces C(%C) by a hash of address, port and user (ssh_config(5)): a host that gets another address does not
    keep the connection to the old one.
    """
    name = f"{os.path.realpath(inventory_dir)}/{host}"
    return f"%(directory)s/{hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]}-%%C"
