# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of modules that keep files and the units of systemd that read them."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of the options of module_utils/systemd_units.py."""

    DOCUMENTATION = r"""
options:
  files:
    description:
      - Files that shall have this content. After a change below C(/etc/systemd/system), systemd reads its units again.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Path of the file. Its directory is made if it does not exist.
        type: path
        required: true
      state:
        description: Whether the file exists.
        type: str
        choices: [present, absent]
        default: present
      content:
        description: >-
          The whole text of the file. Either this or O(files[].template) is required with O(files[].state=present).
        type: str
      template:
        description: Template of the whole text, looked for in the role's C(templates/) as Ansible's own templates are.
        type: str
      mode:
        description: Permission bits, in octal digits.
        type: str
        default: "0644"
      owner:
        description: Name of the owner. By default the owner stays as it is.
        type: str
      group:
        description: Name of the group. By default the group stays as it is.
        type: str
      if_directory:
        description: Whether the file is left out on a node that does not have its directory.
        type: bool
        default: false
  units:
    description: Units that shall be enabled at boot. They are started in this order.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the unit, with its suffix.
        type: str
        required: true
      state:
        description:
          - Whether the unit shall run, too.
          - With V(absent), the unit is stopped and disabled before its file in O(files) is removed. A node without the
            unit is in order.
        type: str
        choices: [started, enabled, absent]
        default: started
      restart_after:
        description: Paths of O(files) after whose change a running unit is restarted.
        type: list
        elements: path
        default: []
      restarted:
        description: Whether to restart a running unit in any case, after a change that an earlier task has made.
        type: bool
        default: false
"""
