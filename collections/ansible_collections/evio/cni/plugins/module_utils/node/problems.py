# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is wrong with a node, in words, each with the command that mends it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..overlay.state import STATE_LIFETIME
from .certificates import COLLECTION, DAEMONSET, KUBEADM, KUBELET, SITE, Certificate
from .model import NodeStatus
from .report import NOT_RESERVED, NetworkStatus, PodStatus, count, some

ERROR, WARNING, NOTE = "error", "warning", "note"
"""Severities: pods are cut off or cannot start; they soon will be; it is good to know."""

ON_NODE, ON_CONTROL = "node", "control machine"
"""Where the remedy is run."""

CERTIFICATE_DAYS = 30
"""Days before its end from which a certificate is named."""

_DAY = 86400.0

_FULL = 0.9
"""The part of a node's addresses from which its room is named."""

_NEEDED_SERVICES = ("evio-overlay.service", "evio.service", "ovs-vswitchd.service", "ovsdb-server.service")
"""Services that must run where they are enabled."""

_SWITCH_SERVICES = ("ovs-vswitchd.service", "ovsdb-server.service")


_ROTATE = "ansible-playbook -i INVENTORY evio.cni.rotate"

_RENEWALS = {
    COLLECTION: (_ROTATE, ON_CONTROL),
    DAEMONSET: (f"{_ROTATE}; then the kubectl apply that it names, for the Secret", ON_CONTROL),
    KUBEADM: ("kubeadm certs renew all", ON_NODE),
    KUBELET: ("systemctl restart kubelet", ON_NODE),
}
"""What renews a certificate, and where that is run, by who renews it."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong. The fields are keys of ``evio status --json``."""

    severity: str
    """ERROR, WARNING or NOTE."""
    what: str
    """One sentence that makes sense alone."""
    remedy: str
    """The command that mends it, or that shows why."""
    run_on: str = ON_NODE
    """ON_NODE or ON_CONTROL."""


def problems_of(status: NodeStatus) -> list[Problem]:
    """Return what is wrong with the node, the worst first."""
    found = [
        *_network_problems(status),
        *_overlay_problems(status),
        *_service_problems(status),
        *_certificate_problems(status),
    ]
    order = [ERROR, WARNING, NOTE]
    return sorted(dict.fromkeys(found), key=lambda problem: order.index(problem.severity))


def _network_problems(status: NodeStatus) -> Iterator[Problem]:
    if status.networks_fault:
        yield Problem(
            ERROR,
            f"new pods get no network: {status.networks_fault}",
            f"ansible-playbook -i INVENTORY evio.cni.bootstrap --limit {status.node or 'NODE'}",
            ON_CONTROL,
        )
    if status.claim is not None and status.claim.fence:
        yield Problem(
            ERROR,
            f"the node is fenced, new pods are refused: {status.claim.fence}",
            f"ansible-playbook -i INVENTORY evio.cni.bootstrap --limit {status.node or 'NODE'}",
            ON_CONTROL,
        )
    for network in status.networks:
        yield from _verdict_problems(network, is_fenced=status.claim is not None and bool(status.claim.fence))
        for fault in network.faults:
            yield Problem(ERROR, f"network {network.network}: {fault.what}", fault.remedy)
        yield from _pod_problems(network)
        yield from _room_problems(network)
        if network.mtu_warning is not None:
            yield Problem(WARNING, f"network {network.network}: {network.mtu_warning}", "evio status")


def _verdict_problems(network: NetworkStatus, *, is_fenced: bool) -> Iterator[Problem]:
    if network.verdict is None or is_fenced:
        return
    what, _separator, remedy = network.verdict.partition("; remedy: ")
    yield Problem(ERROR, f"network {network.network} is not ready for pods: {what}", remedy or _remedy_of(what))


def _remedy_of(verdict: str) -> str:
    """Return the command that a verdict of STATUS asks for; verdicts about other things are explained by the log."""
    for words, command in (
        ("ovs-vswitchd", "systemctl restart openvswitch-switch"),
        ("ovsdb-server", "systemctl restart openvswitch-switch"),
        ("overlay", "systemctl restart evio-overlay; journalctl -u evio-overlay -n 50"),
        ("address", "evio gc"),
        ("full", "df -h"),
    ):
        if words in verdict:
            return command
    return "evio repair"


def _pod_problems(network: NetworkStatus) -> Iterator[Problem]:
    by_state: dict[str, list[PodStatus]] = {}
    for pod in network.pods:
        by_state.setdefault(pod.state, []).append(pod)
    for state, severity, words, command in (
        ("not plugged in", ERROR, "not plugged into the bridge", "evio repair"),
        ("not served", ERROR, "cut off, because Open vSwitch does not run", "systemctl restart openvswitch-switch"),
        (NOT_RESERVED, WARNING, "not safe, because IPAM may give their addresses to other pods", "evio repair"),
        ("gone", NOTE, "gone, and something of them is left behind", "evio gc"),
    ):
        pods = by_state.get(state, [])
        if pods:
            verb = "is" if len(pods) == 1 else "are"
            yield Problem(severity, f"{count(len(pods), 'pod')} {verb} {words}: {_names(pods)}", command)


def _room_problems(network: NetworkStatus) -> Iterator[Problem]:
    for room in network.room:
        if room.size and room.reserved >= _FULL * room.size:
            yield Problem(
                WARNING,
                f"{room.reserved} of {room.size} pod addresses of {room.subnet} are taken",
                "evio gc; evio status",
            )


def _overlay_problems(status: NodeStatus) -> Iterator[Problem]:
    overlay = status.overlay
    if status.overlay_fault:
        yield Problem(ERROR, status.overlay_fault, "evio overlay status; journalctl -u evio-overlay -n 50")
    if overlay is None:
        return
    if overlay.age_seconds >= STATE_LIFETIME:
        yield Problem(
            ERROR,
            f"the overlay's agent has said nothing for {overlay.age_seconds:.0f} s",
            "systemctl restart evio-overlay; journalctl -u evio-overlay -n 50",
        )
    if overlay.fault:
        yield Problem(
            ERROR, f"the overlay is down: {overlay.fault}", "evio overlay status; journalctl -u evio-overlay -n 50"
        )
    for chain in overlay.blocked:
        what, _separator, remedy = chain.partition("; remedy: ")
        yield Problem(ERROR, f"a firewall of the node cuts pods off: {what}", remedy or "nft list ruleset")
    if overlay.is_rekeying:
        yield Problem(
            NOTE,
            "a rotation of WireGuard keys is not finished, and former keys are accepted too",
            "ansible-playbook -i INVENTORY evio.cni.rotate -e evio_rotate=wireguard",
            ON_CONTROL,
        )
    lost = [peer.name for peer in overlay.peers if peer.path is None]
    if lost and len(lost) == len(overlay.peers):
        yield Problem(
            ERROR,
            "the node reaches no other node through the overlay",
            "evio overlay status; wg show; journalctl -u evio-overlay -n 50",
        )
    elif lost:
        yield Problem(
            ERROR, f"there is no way to {some(sorted(lost))}", "evio overlay status; journalctl -u evio-overlay -n 50"
        )


def _service_problems(status: NodeStatus) -> Iterator[Problem]:
    verdicts = " ".join(network.verdict or "" for network in status.networks)
    for service in status.services:
        if service.name in _SWITCH_SERVICES and ("ovsdb-server" in verdicts or "ovs-vswitchd" in verdicts):
            # The network's verdict has told it.
            continue
        if service.state == "failed" or (
            service.name in _NEEDED_SERVICES and service.is_enabled and service.state in ("inactive", "deactivating")
        ):
            words = "has failed" if service.state == "failed" else "does not run"
            yield Problem(
                ERROR if service.name in _NEEDED_SERVICES else WARNING,
                f"{service.name} {words}",
                f"systemctl restart {service.name}; journalctl -u {service.name} -n 50",
            )


def _certificate_problems(status: NodeStatus) -> Iterator[Problem]:
    for certificate in status.certificates:
        if certificate.error is not None:
            yield Problem(
                NOTE, f"{certificate.path} is not known to be valid: {certificate.error}", f"ls -l {certificate.path}"
            )
        elif certificate.expires is not None:
            days = (certificate.expires - status.time) / _DAY
            if days < CERTIFICATE_DAYS:
                words = "has expired" if days < 0 else f"expires in {count(int(days), 'day')}"
                what = f"{certificate.path}{', the certificate of a CA,' if certificate.is_ca else ''} {words}"
                yield Problem(ERROR if days < 0 else WARNING, what, *_renewal(certificate))


def _renewal(certificate: Certificate) -> tuple[str, str]:
    """Return what renews the certificate, and where that is run."""
    if certificate.is_ca or certificate.renewed_by == SITE:
        # Neither kubeadm nor this collection renews a CA.
        return f"openssl x509 -noout -issuer -enddate -in {certificate.path}; replace it by hand", ON_NODE
    return _RENEWALS[certificate.renewed_by]


def _names(pods: Sequence[PodStatus]) -> str:
    return some([pod.label for pod in pods])
