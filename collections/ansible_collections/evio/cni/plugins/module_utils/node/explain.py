# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Explain why a pod is not reachable: every link of its chain, in the order in which a frame passes them.

Nothing is changed. What is looked at, and the command that mends each fault: plugin/findings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..cni.netconf import NetConf
from ..errors import EvioError
from ..plugin.expected import expected_by_entry
from ..plugin.findings import Finding, findings
from ..state.attachments import JournalEntry, journal_entries
from ..state.journal import Journal


class UnknownPodError(EvioError):
    """No attachment of that container id or address is in the journal, or more than one."""


@dataclass(frozen=True)
class LinkReport:
    """One link of the chain. The fields are the keys of ``evio explain --json``."""

    link: str
    holds: bool
    what: str
    """One sentence for each fault, or one for the link that holds."""
    remedy: str
    """Empty where the link holds."""


def explain(networks: list[NetConf], pod: str) -> list[LinkReport]:
    """Report on the links of a pod, given by the start of its container id or by one of its addresses.

    Raises UnknownPodError.
    """
    conf, entry = _find(networks, pod)
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
            "evio status lists the pods"
        )
    if len(found) > 1:
        raise UnknownPodError(f"{len(found)} pods have a container id that starts with {pod}; give more of the id")
    return found[0]
