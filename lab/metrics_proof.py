"""The proof that nodes' metrics are written and served by systemd, to nodes alone, and that none is left when off.

Each node's timer must have written metrics that Prometheus' own promtool can read; each node must get those of all
others over the overlay. Pods, the internet host, and a packet that comes by the underlay must get none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import http_requests
import network
import nodes
import pods
from commands import LabError, attempt, in_netns, run
from http_requests import Source
from proof import Check
from state import Lab
from topology import Node, Topology

import playbooks

PORT = 9469
DIRECTORY = "/var/lib/prometheus/node-exporter"
"""What molecule/default/vars/metrics.yml gives as evio_metrics_port and evio_metrics_textfile_directory."""

_FILE = f"{DIRECTORY}/evio.prom"
_UNITS = ("evio-metrics.timer", "evio-metrics.service", "evio-metrics.socket")
_TIMER_SECONDS = 90.0
"""The timer writes the file every 30 seconds, at the latest."""

_OFF = ("-e", "evio_metrics_port=0", "-e", "evio_metrics_textfile_directory=")

_FORBIDDEN = "status 403"


def prove(lab: Lab) -> list[Check]:
    """Return what must hold while the nodes have metrics. Raises LabError if a node or pod cannot be asked."""
    topology = lab.topology()
    running = pods.running(lab)
    checks = [check for node in topology.nodes for check in _written(lab, node)]
    checks += list(_served(lab, topology))
    inside = [
        Source(pod.name, pod.node, pod.address, f"/proc/{pod.pid}/ns/net")
        for pod in running
        if pod.name.endswith(pods.PER_NODE[0])
    ]
    for pod in inside:
        for url, reason in zip(_urls(topology), http_requests.reasons(lab, pod, _urls(topology)), strict=True):
            claim = f"{pod.name} is refused {url} (it got: {reason or 'the metrics'})"
            checks.append(Check(claim, reason == _FORBIDDEN, _show_socket(pod.node)))
    checks += list(_closed_to_the_underlay(lab, topology))
    return checks


def prove_off(lab: Lab) -> list[Check]:
    """Set the variables off by bootstrap.yml twice, and return what must hold then."""
    for node in lab.topology().nodes:
        _await_file(lab, node)
    playbooks.run(lab, "bootstrap.yml", *_OFF)
    again = playbooks.run(lab, "bootstrap.yml", *_OFF)
    changed = re.findall(r"(\S+) +: ok=.* changed=([1-9]\d*)", again)
    checks = [Check(f"a second run without metrics changes nothing (changed: {changed})", not changed, "")]
    for node in lab.topology().nodes:
        left = _on(lab, node, f"ls -d {_FILE} /run/evio-metrics /etc/systemd/system/evio-metrics* 2>/dev/null; true")
        left += _on(lab, node, "systemctl list-units --all --no-legend 'evio-metrics*'")
        checks.append(Check(f"{node.name} has no file and no unit of metrics (found: {left.split()})", not left, ""))
        is_silent = str(PORT) not in _on(lab, node, "ss -Hltn")
        checks.append(Check(f"nothing listens at port {PORT} of {node.name}", is_silent, ""))
    return checks


def as_text(checks: Sequence[Check]) -> str:
    """Return a line for each check, and the command to run next for those that do not hold."""
    lines = []
    for check in checks:
        lines.append(f"{'ok    ' if check.holds else 'FAILED'}  {check.claim}")
        lines += [f"        -> {check.next_step}"] if check.next_step and not check.holds else []
    return "\n".join(lines) + "\n"


def _written(lab: Lab, node: Node) -> Iterator[Check]:
    show = f"lab/lab ssh {node.name} systemctl status evio-metrics.timer evio-metrics.service"
    age = _await_file(lab, node)
    yield Check(f"the timer of {node.name} has written {_FILE} (age: {age} s)", age is not None, show)
    text = _on(lab, node, f"cat {_FILE} 2>/dev/null; true")
    found = attempt("promtool", "check", "metrics", stdin=text)
    said = (found.stdout + found.stderr).strip()
    yield Check(f"promtool finds nothing wrong with the metrics of {node.name} ({said or 'nothing'})", not said, show)


def _await_file(lab: Lab, node: Node) -> int | None:
    """Wait until the node's timer has written the file, and return its age in seconds; None if it does not."""
    deadline = time.monotonic() + _TIMER_SECONDS
    while True:
        told = _on(lab, node, f"echo $(( $(date +%s) - $(stat -c %Y {_FILE} 2>/dev/null || echo 0) ))")
        if int(told) < _TIMER_SECONDS:
            return int(told)
        if time.monotonic() > deadline:
            return None
        time.sleep(2)


def _served(lab: Lab, topology: Topology) -> Iterator[Check]:
    for number, node in enumerate(topology.nodes, start=1):
        listening = [line.split()[3] for line in _on(lab, node, "ss -Hltn").splitlines() if f":{PORT}" in line]
        claim = f"{node.name} listens at its host overlay address alone (found: {', '.join(listening)})"
        yield Check(claim, listening == [f"10.10.0.{number}:{PORT}"], _show_socket(node.name))
        source = Source(node.name, node.name, node.host)
        urls = [url for url in _urls(topology) if url != _url(number)]
        for url, answer in zip(urls, http_requests.ask(lab, source, urls), strict=True):
            name = topology.nodes[int(url.split(":")[1].rpartition(".")[2]) - 1].name
            holds = answer is not None and f'evio_info{{node="{name}"' in answer
            yield Check(f"{node.name} gets the metrics of {name} over the overlay", holds, _show_socket(name))


def _closed_to_the_underlay(lab: Lab, topology: Topology) -> Iterator[Check]:
    """The internet host asks each public node at its own address, and at its overlay address by way of it."""
    for number, node in enumerate(topology.nodes, start=1):
        if node.router is not None:
            continue
        urls = [f"http://{node.host}:{PORT}/metrics", _url(number)]
        with _route_by(lab, f"10.10.0.{number}", node.host):
            answers = http_requests.ask_from_internet(lab, urls)
        for url, answer in zip(urls, answers, strict=True):
            yield Check(f"the internet gets no metrics from {url} of {node.name}", answer is None, "")


@contextmanager
def _route_by(lab: Lab, address: str, gateway: str) -> Iterator[None]:
    inside = lab.netns(network.INTERNET)
    run(*in_netns(inside, ["ip", "route", "add", address, "via", gateway]))
    try:
        yield
    finally:
        attempt(*in_netns(inside, ["ip", "route", "delete", address]))


def _urls(topology: Topology) -> list[str]:
    return [_url(number) for number in range(1, len(topology.nodes) + 1)]


def _url(number: int) -> str:
    return f"http://10.10.0.{number}:{PORT}/metrics"


def _show_socket(node: str) -> str:
    return f"lab/lab ssh {node} systemctl status evio-metrics.socket"


def _on(lab: Lab, node: Node, script: str) -> str:
    return run(*nodes.command(lab, node, ["sh", "-c", script]))


def need_all(checks: Sequence[Check]) -> None:
    """Raise LabError if one does not hold."""
    failed = [check.claim for check in checks if not check.holds]
    if failed:
        raise LabError(f"{len(failed)} of {len(checks)} checks do not hold: {'; '.join(failed[:3])}")
