# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that lists the accounts that a TURN server takes."""

from __future__ import annotations

DOCUMENTATION = r"""
name: accepted_turn_accounts
short_description: List the accounts that a TURN server takes
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Lists the accounts that count, and while they are rotated also those that nodes had before.
  - M(evio.cni.signalling_passwords) keeps the file.
options:
  _input:
    description: Entries of C(evio_turn_servers).
    type: list
    elements: dict
    required: true
  credentials:
    description: Content of the file that C(evio_credentials_file) names; empty if there is none.
    type: str
    required: true
"""

EXAMPLES = r"""
accounts: "{{ evio_turn_servers | evio.cni.accepted_turn_accounts(__evio_credentials) }}"
"""

RETURN = r"""
_value:
  description: Entries of the same shape, one for each account.
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import EvioError
from ..module_utils.overlay.edgevpn import credentials as rotated


def accepted_turn_accounts(servers: Iterable[Mapping[str, Any]], credentials: str) -> list[dict[str, Any]]:
    """Return an entry for each account. Raises AnsibleFilterError."""
    try:
        return rotated.accepted_turn_accounts(servers, rotated.parse_credentials(credentials))
    except EvioError as error:
        raise AnsibleFilterError(f"evio_credentials_file: {error}") from None


class FilterModule:
    """The filter for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"accepted_turn_accounts": accepted_turn_accounts}
