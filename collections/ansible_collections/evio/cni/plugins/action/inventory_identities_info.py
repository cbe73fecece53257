# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin inventory_identities_info: refuses hosts that are other machines; inventory/identities has the checks.

It runs in Ansible's own process, for the reason that cluster_info gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.errors import EvioError
from ..module_utils.inventory.identities import SeenIdentity, former_names, refuse_wrong_hosts

_ARGUMENT_SPEC: dict[str, Any] = {
    "cluster": {"type": "str", "required": True},
    "identities": {"type": "dict", "required": True},
    "nodes": {"type": "list", "elements": "str", "default": []},
    "rename": {"type": "dict", "default": {}},
}


class ActionModule(ActionBase):
    """Compare the identities of all hosts with the inventory."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(argument_spec=_ARGUMENT_SPEC)
        seen = {name: SeenIdentity(**identity) for name, identity in arguments["identities"].items() if identity}
        try:
            renamed = former_names(_names(arguments["rename"]), arguments["nodes"], seen)
            refuse_wrong_hosts(arguments["cluster"], seen, renamed)
        except EvioError as error:
            raise AnsibleActionFail(str(error)) from None
        return {**result, "changed": False, "former_names": renamed}


def _names(renames: Mapping[Any, Any]) -> dict[str, str]:
    """Return the renames as names; numbers may be names, too."""
    return {str(former): str(name) for former, name in renames.items()}
