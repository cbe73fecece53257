# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter that gives an XMPP account the password that counts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: current_account
short_description: Give an XMPP account the password that counts
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Replaces the password of an account of the inventory by the one that a rotation has made since.
  - M(evio.cni.signalling_passwords) keeps the file.
options:
  _input:
    description: The account, as in C(evio_xmpp_host_account).
    type: dict
    required: true
  credentials:
    description: Content of the file that C(evio_credentials_file) names; empty if there is none.
    type: str
    required: true
"""

EXAMPLES = r"""
account: "{{ evio_xmpp_host_account | evio.cni.current_account(__evio_credentials) }}"
"""

RETURN = r"""
_value:
  description: The account.
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ..module_utils.errors import EvioError
from ..module_utils.overlay.edgevpn import credentials as rotated


def current_account(account: Mapping[str, Any], credentials: str) -> dict[str, Any]:
    """Return the account with the password that counts. Raises AnsibleFilterError."""
    try:
        return rotated.current_account(account, rotated.parse_credentials(credentials))
    except EvioError as error:
        raise AnsibleFilterError(f"evio_credentials_file: {error}") from None


class FilterModule:
    """The filter for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"current_account": current_account}
