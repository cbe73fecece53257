# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin kubernetes_plan_info: decides what kubeadm has to do on which host; inventory/kubernetes has the rules.

It runs in Ansible's own process, where what all hosts have said is.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ..module_utils.errors import EvioError
from ..module_utils.inventory.kubernetes import plan_kubernetes
from ..module_utils.kubernetes.kubeadm import KubeadmHost

_ARGUMENT_SPEC: dict[str, Any] = {
    "hosts": {"type": "dict", "required": True},
    "run": {"type": "list", "elements": "str", "required": True},
    "control_plane": {"type": "list", "elements": "str", "required": True},
    "members": {"type": "list", "elements": "str", "required": True},
    "endpoint": {"type": "str", "required": True},
}


class ActionModule(ActionBase):
    """Decide what kubeadm has to do."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, arguments = self.validate_argument_spec(argument_spec=_ARGUMENT_SPEC)
        try:
            plan = plan_kubernetes(
                {name: KubeadmHost(**host) for name, host in arguments["hosts"].items()},
                run=arguments["run"],
                control_plane=arguments["control_plane"],
                members=arguments["members"],
                endpoint=arguments["endpoint"],
            )
        except EvioError as error:
            raise AnsibleActionFail(str(error)) from None
        return {**result, "changed": False, **asdict(plan)}
