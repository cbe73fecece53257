# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The metrics of a node for Prometheus: what METRICS lists, out of the node's status and the counters' sums.

Pods and containers never become labels, since each would make series that stay for ever. Peers do: a node has as many
as the cluster has nodes. docs/metrics.md describes each metric for operators.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from .. import paths
from ..errors import EvioError
from ..overlay.state import DIRECT, STATE_LIFETIME
from ..overlay.wireguard.agent_files import AgentFiles
from ..state.event_log import FENCE
from .counters import BOUNDS, Counters, update
from .exposition import COUNTER, GAUGE, HISTOGRAM, Family, Histogram, Metric, render
from .model import IDLE, NONE, RELAYED, NodeStatus, Overlay
from .problems import ERROR, NOTE, WARNING, problems_of
from .repair import REPAIRS
from .report import POD_STATES
from .status import read_status

_CODES = (1, 2, 3, 4, 5, 6, 7, 11, 50, 51, 100, 101)
"""Error codes of the CNI specification, and ours."""

_OTHER_CODES = "other"
"""The label of all other codes, which an IPAM plugin may return."""

_MOST_NETWORKS = 50

METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "evio_info",
            GAUGE,
            "1; labels tell the node and its programs.",
            ("node", "cluster", "version", "collection"),
        ),
        Metric("evio_metrics_time_seconds", GAUGE, "When these metrics were read, in seconds since 1970."),
        Metric("evio_metrics_faults", GAUGE, "Parts of the node that could not be read this time."),
        Metric("evio_problems", GAUGE, "Problems that evio status shows, by severity.", ("severity",)),
        Metric("evio_service_active", GAUGE, "Whether the enabled unit of systemd is active.", ("unit",)),
        Metric("evio_network_ready", GAUGE, "Whether a new pod would get its network.", ("network",)),
        Metric("evio_attachments", GAUGE, "Attachments of pods in the journal, by state.", ("network", "state")),
        Metric("evio_pod_addresses", GAUGE, "Addresses that pods of this node can get.", ("network", "subnet")),
        Metric("evio_pod_addresses_reserved", GAUGE, "Addresses that are taken.", ("network", "subnet")),
        Metric("evio_claim_epoch", GAUGE, "Fencing epoch of the node's claim on its pod subnets."),
        Metric("evio_fenced", GAUGE, "Whether the node is fenced: it has lost its claim and gets no new pods."),
        Metric("evio_fences_total", COUNTER, "How often the node was fenced."),
        Metric("evio_repairs_total", COUNTER, "Things that repairs have mended, by kind.", ("kind",)),
        Metric("evio_cni_call_duration_seconds", HISTOGRAM, "Duration of calls of the CNI plugin.", ("verb",)),
        Metric("evio_cni_failures_total", COUNTER, "Failed calls of the CNI plugin, by error code.", ("verb", "code")),
        Metric("evio_damaged_records_total", COUNTER, "Records of the event log that could not be read."),
        Metric("evio_overlay_up", GAUGE, "Whether the overlay's agent runs and reports no fault."),
        Metric("evio_overlay_state_age_seconds", GAUGE, "Age of what the overlay's agent has last reported."),
        Metric("evio_overlay_blocking_chains", GAUGE, "Firewall chains of this node that drop the overlay's packets."),
        Metric("evio_overlay_peers", GAUGE, "Other nodes by the kind of the way to them.", ("kind",)),
        Metric("evio_overlay_peer_rtt_seconds", GAUGE, "Round trip of the direct way to the node.", ("peer",)),
        Metric("evio_overlay_peer_handshake_age_seconds", GAUGE, "Age of WireGuard's last handshake.", ("peer",)),
        Metric("evio_overlay_peer_received_bytes_total", COUNTER, "Bytes received from the node.", ("peer",)),
        Metric("evio_overlay_peer_sent_bytes_total", COUNTER, "Bytes sent to the node.", ("peer",)),
        Metric("evio_certificate_expiry_time_seconds", GAUGE, "End of the certificate, since 1970.", ("path",)),
        Metric("evio_certificates_unreadable", GAUGE, "Certificates that could not be read."),
    )
}
"""All metrics, by name. Each has a line in docs/metrics.md."""


def read_metrics(
    *,
    conf_dir: str = paths.CNI_CONF_DIR,
    state_dir: str = paths.STATE_DIR,
    files: AgentFiles | None = None,
    create: bool = False,
) -> tuple[str, list[str]]:
    """Look at the node; return the metrics as text, and one sentence for each part that could not be read.

    ``create`` makes the log from which the plugin's calls, repairs and fences are counted; it is in ``state_dir``.
    """
    status = read_status(conf_dir=conf_dir, cri_socket="", state_dir=state_dir, files=files, with_errors=False)
    faults = [*status.faults, *([status.networks_fault] if status.networks_fault else ())]
    faults += [status.overlay_fault] if status.overlay_fault else []
    counters = None
    try:
        counters = update(state_dir, _peer_counts(status.overlay), create=create)
    except EvioError as error:
        faults.append(str(error))
    return render(families_of(status, counters, len(faults))), faults


def families_of(status: NodeStatus, counters: Counters | None, faults: int) -> list[Family]:
    """Return the families. ``counters`` is None where they could not be read: then their families are empty. Pure."""
    families = {name: Family(metric) for name, metric in METRICS.items()}

    def add(name: str, value: float | Histogram | None, *labels: str) -> None:
        if value is not None:
            families[name].samples[labels] = value

    versions = status.versions
    labels = (status.node or status.hostname, status.cluster, versions.evio or "", versions.collection or "")
    add("evio_info", 1, *labels)
    add("evio_metrics_time_seconds", status.time)
    add("evio_metrics_faults", faults)
    severities = Counter(problem.severity for problem in problems_of(status))
    for severity in (ERROR, WARNING, NOTE):
        add("evio_problems", severities[severity], severity)
    for service in status.services:
        if service.is_enabled:
            add("evio_service_active", service.state == "active", service.name)
    _add_networks(add, status)
    if status.overlay is not None:
        _add_overlay(add, status.overlay)
    elif status.overlay_fault is not None:
        add("evio_overlay_up", 0)
    for certificate in status.certificates:
        add("evio_certificate_expiry_time_seconds", certificate.expires, certificate.path)
    add("evio_certificates_unreadable", sum(certificate.error is not None for certificate in status.certificates))
    if counters is not None:
        _add_counters(add, counters)
    return list(families.values())


_Add = Callable[..., None]


def _add_networks(add: _Add, status: NodeStatus) -> None:
    for network in status.networks[:_MOST_NETWORKS]:
        add("evio_network_ready", network.verdict is None, network.network)
        states = Counter(pod.state for pod in network.pods)
        for state in POD_STATES:
            add("evio_attachments", states[state], network.network, state)
        for room in network.room:
            add("evio_pod_addresses", room.size, network.network, room.subnet)
            add("evio_pod_addresses_reserved", room.reserved, network.network, room.subnet)
    if status.claim is not None:
        add("evio_claim_epoch", status.claim.epoch)
        add("evio_fenced", status.claim.fence is not None)


def _add_overlay(add: _Add, overlay: Overlay) -> None:
    add("evio_overlay_up", overlay.fault is None and overlay.age_seconds < STATE_LIFETIME)
    add("evio_overlay_state_age_seconds", overlay.age_seconds)
    add("evio_overlay_blocking_chains", len(overlay.blocked))
    kinds = Counter(peer.kind for peer in overlay.peers)
    for kind in (DIRECT, RELAYED, IDLE, NONE):
        add("evio_overlay_peers", kinds[kind], kind)
    for peer in overlay.peers:
        add("evio_overlay_peer_rtt_seconds", None if peer.rtt_ms is None else peer.rtt_ms / 1000, peer.name)
        add("evio_overlay_peer_handshake_age_seconds", peer.handshake_age, peer.name)


def _add_counters(add: _Add, counters: Counters) -> None:
    for verb, calls in counters.calls.items():
        add("evio_cni_call_duration_seconds", Histogram(BOUNDS, calls.buckets, calls.microseconds / 1e6), verb)
        # A series that begins with its first failure would have no increase.
        failures = dict.fromkeys([*map(str, _CODES), _OTHER_CODES], 0)
        for code, count in calls.failures.items():
            failures[code if code in failures else _OTHER_CODES] += count
        for code, count in failures.items():
            add("evio_cni_failures_total", count, verb, code)
    if counters.calls:
        for kind in REPAIRS:
            add("evio_repairs_total", counters.events.get(kind, 0), kind)
        add("evio_fences_total", counters.events.get(FENCE, 0))
        add("evio_damaged_records_total", counters.damaged)
    for name, peer in counters.peers.items():
        add("evio_overlay_peer_received_bytes_total", peer.received, name)
        add("evio_overlay_peer_sent_bytes_total", peer.sent, name)


def _peer_counts(overlay: Overlay | None) -> Mapping[str, tuple[int, int] | None] | None:
    if overlay is None:
        return None
    return {
        peer.name: None
        if peer.received_bytes is None or peer.sent_bytes is None
        else (peer.received_bytes, peer.sent_bytes)
        for peer in overlay.peers
    }
