# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that keeps units of systemd and their files in one step; module_utils/systemd_units does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_units
short_description: Keep files, and the units of systemd that read them, in one step
version_added: 0.1.0
description:
  - Writes the files that differ, lets systemd read changed units, enables units, and starts or restarts them.
  - Does in one step what M(ansible.builtin.template) and M(ansible.builtin.systemd_service) do in one step for each
    file and each unit. It asks systemd once for the state of all units.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.units
attributes:
  check_mode:
    support: full
    details: A unit whose package is not installed yet is expected to be installed by the real run.
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Run the watchdog, and restart it after a change of its settings
  evio.cni.systemd_units:
    files:
      - path: /etc/systemd/system/watchdog.service.d/site.conf
        template: site.conf.j2
    units:
      - name: watchdog.service
        restart_after: [/etc/systemd/system/watchdog.service.d/site.conf]
"""

RETURN = r"""
files:
  description: The files that were changed or, in check mode, would be changed.
  returned: success
  type: list
  elements: str
units:
  description: The units that were enabled, started or restarted or, in check mode, would be.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.module_runner import Module, run_module
from ..module_utils.systemd_units import OPTIONS, from_options


class SystemdUnitsTask:
    """One run: read files and units once, compare, change what differs unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.wanted = from_options(module.params["files"], module.params["units"], dry_run=module.check_mode)

    def run(self) -> dict[str, Any]:
        self.wanted.write_files()
        self.wanted.start()
        return self.wanted.result()


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    run_module(module, SystemdUnitsTask)


if __name__ == "__main__":
    main()
