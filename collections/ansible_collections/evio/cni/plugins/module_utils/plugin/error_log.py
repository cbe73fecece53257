# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write a failed call into systemd's journal, with the pod's name, by which people look for it.

The runtime logs the error, too, among its own messages. Only a failed call imports this file.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..cni.spec import CniError
from ..kernel.journald import send_entry

_COMMANDS = ("ADD", "DEL", "CHECK", "GC")
"""Those that are logged. A runtime asks for STATUS every few seconds, and kubelet shows the answer at the node."""

_ERROR = "3"
"""syslog's priority (syslog(3), LOG_ERR)."""


def log_error(environment: Mapping[str, str], error: CniError) -> None:
    """Write the error of the call that this environment describes; it may be anything, and is not trusted."""
    command = environment.get("CNI_COMMAND", "")
    if command in _COMMANDS:
        send_entry(entry_fields(command, environment, error))


def entry_fields(command: str, environment: Mapping[str, str], error: CniError) -> dict[str, str]:
    """Return the fields of the journal's entry. They are described in docs/troubleshooting.md."""
    # As kubelet and containerd give it: K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;...
    pairs = (pair.partition("=") for pair in environment.get("CNI_ARGS", "").split(";"))
    arguments = {key: value for key, _equals, value in pairs}
    namespace, name = (arguments.get(f"K8S_POD_{part}", "") for part in ("NAMESPACE", "NAME"))
    container_id = environment.get("CNI_CONTAINERID", "")
    pod = f"{namespace}/{name}" if namespace and name else container_id
    return {
        "MESSAGE": f"{command}{f' of {pod}' if pod else ''}: {error.msg}",
        "PRIORITY": _ERROR,
        "SYSLOG_IDENTIFIER": "evio",
        "K8S_POD_NAMESPACE": namespace,
        "K8S_POD_NAME": name,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_IFNAME": environment.get("CNI_IFNAME", ""),
        "CNI_ERROR_CODE": str(error.code),
        "CNI_ERROR_DETAILS": error.details,
    }
