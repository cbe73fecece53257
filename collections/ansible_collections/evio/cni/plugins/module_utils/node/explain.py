# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Explain why a pod is not reachable: every link of its chain, in the order in which a frame passes them.

Nothing is changed. What is looked at, and the command that mends each fault: plugin/findings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..cni import cri
from ..cni.netconf import NetConf
from ..errors import EvioError
from ..plugin.expected import expected_by_entry
from ..plugin.findings import Finding, findings
from ..state.attachments import JournalEntry, journal_entries
from ..state.journal import Journal

_SHORT_ID = 13
"""Characters of a container id that are shown, as crictl does."""


class UnknownPodError(EvioError):
    """No attachment of that name, container id or address is in the journal, or more than one."""


@dataclass(frozen=True)
class LinkReport:
    """One link of the chain. The fields are the keys of ``evio explain --json``."""

    link: str
    holds: bool
    what: str
    """One sentence for each fault, or one for the link that holds."""
    remedy: str
    """Empty where the link holds."""


def explain(networks: list[NetConf], pod: str, *, cri_socket: str = cri.CONTAINERD) -> list[LinkReport]:
    """Report on the links of a pod: its namespace/name, the start of its container id, or one of its addresses.

    The container runtime at ``cri_socket`` is asked for names alone. Raises UnknownPodError, or CriError.
    """
    conf, entry = _find_by_name(networks, pod, cri_socket) if "/" in pod else _find(networks, pod)
    return reports_by_link(findings(conf, expected_by_entry(conf, entry), thorough=True))


def reports_by_link(chain: Iterable[Finding]) -> list[LinkReport]:
    """Return one report for each link, in the chain's order, with the sentences of all its faults."""
    links: dict[str, list[Finding]] = {}
    for finding in chain:
        links.setdefault(finding.link, []).append(finding)
    return [
        LinkReport(
            link,
            all(finding.holds for finding in found),
            "; ".join(dict.fromkeys(finding.what for finding in found)),
            "; ".join(dict.fromkeys(finding.remedy for finding in found)),
        )
        for link, found in links.items()
    ]


def _find(networks: list[NetConf], pod: str) -> tuple[NetConf, JournalEntry]:
    found = []
    for conf in networks:
        for entry in journal_entries(Journal(conf.state_dir), conf.name):
            addresses = [ip.partition("/")[0] for ip in entry.ips]
            if entry.attachment.container_id.startswith(pod) or pod in addresses:
                found.append((conf, entry))
    if not found:
        raise UnknownPodError(
            f"no pod of this node has the address {pod}, or a container id that starts with {pod}; "
            "a name is given as NAMESPACE/NAME, and evio status lists the pods"
        )
    if len(found) > 1:
        raise UnknownPodError(f"{len(found)} pods have a container id that starts with {pod}; give more of the id")
    return found[0]


def _find_by_name(networks: list[NetConf], pod: str, cri_socket: str) -> tuple[NetConf, JournalEntry]:
    """Return the attachment of the pod with this namespace/name. Its earlier sandboxes may have one, too."""
    namespace, _slash, name = pod.partition("/")
    look = f"look at: journalctl -t evio K8S_POD_NAMESPACE={namespace} K8S_POD_NAME={name}"
    sandboxes = {one for one, told in cri.pod_names(cri_socket).items() if told == cri.PodName(namespace, name)}
    if not sandboxes:
        raise UnknownPodError(f"the container runtime at {cri_socket} has no pod {pod}; {look}")
    found = [
        (conf, entry)
        for conf in networks
        for entry in journal_entries(Journal(conf.state_dir), conf.name)
        if entry.attachment.container_id in sandboxes
    ]
    # A sandbox that has ended keeps its attachment until kubelet removes it.
    found = [one for one in found if one[1].is_alive] or found
    if not found:
        raise UnknownPodError(
            f"the pod {pod} has no attachment to a network of evio.cni: it uses the host's network, or its ADD has "
            f"failed; {look}"
        )
    if len(found) > 1:
        ids = ", ".join(entry.attachment.container_id[:_SHORT_ID] for _conf, entry in found)
        raise UnknownPodError(f"the pod {pod} has {len(found)} attachments; give a container id instead: {ids}")
    return found[0]
