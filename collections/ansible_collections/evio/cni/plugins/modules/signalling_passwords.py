# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the action plugin signalling_passwords, which does all the work on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signalling_passwords
short_description: Make new passwords of XMPP and TURN, and keep them on the control machine
version_added: 0.1.0
description:
  - Keeps the file that O(file) names on the control machine. Its passwords count instead of those of the inventory.
    If the run has a vault password, the file is encrypted with it. Only its owner can read it.
  - The file is written before a password is used anywhere, and says how far a rotation is. A rotation that was cut
    off is continued.
  - Passwords are neither shown nor returned.
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
    support: partial
    details: A rotation that is begun again after it was finished makes new passwords.
options:
  file:
    description: The file on the control machine, as an absolute path. It is made if it does not exist.
    type: path
    required: true
  state:
    description:
      - With V(begun), the accounts of O(usernames) and O(turn_servers) get their next passwords.
      - With V(taken), the next passwords of O(usernames) count.
      - With V(finished), the former accounts of TURN do not count any more.
    type: str
    choices: [begun, taken, finished]
    required: true
  usernames:
    description: XMPP accounts, each with its domain.
    type: list
    elements: str
    default: []
  turn_servers:
    description: Entries of C(evio_turn_servers).
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Make the next passwords of the nodes' accounts
  evio.cni.signalling_passwords:
    file: "{{ evio_credentials_file }}"
    state: begun
    usernames: [node3-pods@xmpp.example]
  run_once: true
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
"""
