# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that gives TURN servers the accounts that count."""

from __future__ import annotations

DOCUMENTATION = r"""
name: current_turn_servers
short_description: Give TURN servers the accounts that count
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Replaces users and passwords of C(evio_turn_servers) by those that a rotation has made since.
  - M(evio.cni.signalling_passwords) keeps the file.
options:
  _input:
    description: The list C(evio_turn_servers).
    type: list
    elements: dict
    required: true
  credentials:
    description: Content of the file that C(evio_credentials_file) names; empty if there is none.
    type: str
    required: true
"""

EXAMPLES = r"""
turn: "{{ evio_turn_servers | evio.cni.current_turn_servers(__evio_credentials) }}"
"""

RETURN = r"""
_value:
  description: The list.
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import EvioError
from ..module_utils.overlay.edgevpn import credentials as rotated


def current_turn_servers(servers: Iterable[Mapping[str, Any]], credentials: str) -> list[dict[str, Any]]:
    """Return the list with the accounts that count. Raises AnsibleFilterError."""
    try:
        return rotated.current_turn_servers(servers, rotated.parse_credentials(credentials))
    except EvioError as error:
        raise AnsibleFilterError(f"evio_credentials_file: {error}") from None


class FilterModule:
    """The filter for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"current_turn_servers": current_turn_servers}
