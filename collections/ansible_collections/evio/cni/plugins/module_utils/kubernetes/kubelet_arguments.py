# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""kubelet's option --node-ip in /etc/default/kubelet, the file that kubeadm leaves to the operator.

The drop-in of Kubernetes' packages reads KUBELET_EXTRA_ARGS from that file, after everything that kubeadm writes. So
neither `kubeadm join` nor `kubeadm upgrade` changes the address. All other arguments in the file stay. Pure.
"""

from __future__ import annotations

import re

from ..errors import EvioError

DEFAULTS_FILE = "/etc/default/kubelet"
"""Read by systemd as an EnvironmentFile (systemd.exec(5))."""

_VARIABLE = "KUBELET_EXTRA_ARGS"
_ASSIGNMENT = re.compile(rf"^\s*{_VARIABLE}=(?P<quote>[\"']?)(?P<value>.*?)(?P=quote)\s*$")
_NODE_IP = re.compile(r"(?:^|(?<=\s))--node-ip(?:=|\s+)\S+\s*")


class KubeletArgumentsError(EvioError):
    """The file assigns KUBELET_EXTRA_ARGS in a way that cannot be changed safely."""


def with_node_ip(text: str | None, address: str | None) -> str | None:
    """Return the file's text with this address as kubelet's node IP, or without a node IP if ``address`` is None.

    ``text`` is None if there is no file; so is the result if there is no file and no need of one. Raises
    KubeletArgumentsError.
    """
    lines = (text or "").splitlines()
    assignments = [index for index, line in enumerate(lines) if re.match(rf"\s*{_VARIABLE}=", line)]
    if len(assignments) > 1:
        raise KubeletArgumentsError(
            f"{DEFAULTS_FILE} assigns {_VARIABLE} {len(assignments)} times, and only the last counts; leave one"
        )
    if not assignments:
        if address is None:
            return text
        return _joined([*lines, _assignment("", address)])
    (index,) = assignments
    match = _ASSIGNMENT.match(lines[index])
    if match is None or match["value"].endswith("\\") or (match["quote"] and match["quote"] in match["value"]):
        raise KubeletArgumentsError(
            f"{DEFAULTS_FILE}: cannot read {lines[index].strip()!r}; write all arguments of {_VARIABLE} in one line, "
            "in one pair of quotes"
        )
    if node_ips(match["value"]) == ([] if address is None else [address]):
        return text
    rest = _NODE_IP.sub("", match["value"]).strip()
    return _joined([*lines[:index], _assignment(rest, address, match["quote"] or '"'), *lines[index + 1 :]])


def node_ips(arguments: str) -> list[str]:
    """Return the values of all options --node-ip among these arguments."""
    return [re.split(r"[=\s]+", found.strip(), maxsplit=1)[1] for found in _NODE_IP.findall(arguments)]


def _assignment(arguments: str, address: str | None, quote: str = '"') -> str:
    words = " ".join(word for word in (arguments, f"--node-ip={address}" if address else "") if word)
    return f"{_VARIABLE}={quote}{words}{quote}" if words else f"{_VARIABLE}="


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
