"""The proof that a Kubernetes cluster works on the lab's pod network: a table of what was done and measured.

The cluster is what playbooks/bootstrap.yml has made. Each row is measured with kubectl and with requests from inside
nodes and pods; kubernetes_faults.py adds the rows in which something breaks meanwhile.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

import kubernetes_changes
import kubernetes_cluster
import kubernetes_cpu
import kubernetes_daemonset
import kubernetes_faults
import kubernetes_network
import kubernetes_pods
import kubernetes_workload as workload
from commands import LabError
from kubectl import await_that
from kubernetes_cluster import Cluster, failed_adds, set_crowd
from kubernetes_pods import OnNode
from rows import Row, measure
from state import Lab

import playbooks

CROWD = 60
"""Pods of the crowd at its largest."""
NETWORK, SCALING, FAULTS, DAEMONSET = DEFAULT_PARTS = ("network", "scaling", "faults", "daemonset")
CHANGES = "changes"
PARTS = (*DEFAULT_PARTS, CHANGES)
"""Parts of the proof, in their order. The last one only runs if it is named."""


def prove(lab: Lab, parts: Collection[str] = DEFAULT_PARTS) -> list[Row]:
    """Make the cluster with bootstrap.yml, and print and return its row and those of these parts.

    Raises LabError if the lab has no Kubernetes.
    """
    if not lab.topology().has_kubernetes:
        raise LabError("the lab's nodes have no Kubernetes: build it with lab/lab up --kubernetes")
    with ThreadPoolExecutor(max_workers=1) as beside:
        # bootstrap.yml waits for the nodes most of its time.
        images = beside.submit(kubernetes_daemonset.build_images, lab) if DAEMONSET in parts else None
        rows = [measure("bootstrap.yml, until all nodes are Ready", lambda: _bootstrap(lab))]
        if not rows[0].holds:
            return rows
        rows += [measure("bootstrap.yml again, which changes nothing", lambda: _bootstrap_again(lab))]
        try:
            cluster = kubernetes_cluster.start(lab)
            if NETWORK in parts:
                rows += kubernetes_network.prove(cluster)
            if SCALING in parts:
                rows += prove_scaling(cluster)
            if FAULTS in parts:
                rows += kubernetes_faults.prove(cluster)
            if images:
                rows += kubernetes_daemonset.prove(kubernetes_cluster.whole_again(cluster), images)
            if CHANGES in parts:
                rows += kubernetes_changes.prove(kubernetes_cluster.whole_again(cluster))
        except LabError as error:
            rows.append(Row("the proof's pods are Ready, also after each fault", str(error)[:300], False))
            print(rows[-1].text, flush=True)
        finally:
            kubernetes_cluster.stop(lab)
    return rows


def prove_scaling(cluster: Cluster) -> Iterator[Row]:
    """Yield the rows in which the crowd grows and goes: nothing may be left of it on the nodes."""
    set_crowd(cluster, 0)
    before, cpu = kubernetes_pods.read_all(cluster.lab, cluster.nodes), kubernetes_cpu.seconds(cluster)
    yield measure(f"scale from 0 to {CROWD}", lambda: _scale_up(cluster))
    yield measure(f"scale from {CROWD} to 0", lambda: (f"all gone after {set_crowd(cluster, 0):.1f} s", True))
    yield measure("nothing left of them on any node", lambda: nothing_left(cluster, before))
    yield measure("CPU time of all nodes for them", lambda: _cpu_since(cluster, cpu))


def _cpu_since(cluster: Cluster, before: Counter[str]) -> tuple[str, bool]:
    after = kubernetes_cpu.seconds(cluster)
    return ", ".join(f"{name} {after[name] - before[name]:.1f} s" for name in sorted(after)), True


def nothing_left(cluster: Cluster, before: dict[str, OnNode]) -> tuple[str, bool]:
    """Compare what the nodes have with what they had; containerd may need some seconds to remove the last sandbox."""

    def now() -> dict[str, dict[str, int]]:
        found = kubernetes_pods.read_all(cluster.lab, cluster.nodes)
        return {name: each.counts() for name, each in found.items()}

    expected = {name: each.counts() for name, each in before.items()}
    try:
        await_that(lambda: now() == expected, "nothing left", timeout=30, interval=2)
    except LabError:
        return f"had {expected}, has {now()}", False
    return "namespaces, OVS ports, veths, addresses, journal, sandboxes as before", True


def _bootstrap(lab: Lab) -> tuple[str, bool]:
    began = time.monotonic()
    changed = playbooks.changes(playbooks.run(lab, "bootstrap.yml", timeout=1200))
    return f"{len(lab.topology().nodes)} nodes after {time.monotonic() - began:.0f} s, {changed} changes", True


def _bootstrap_again(lab: Lab) -> tuple[str, bool]:
    changed = playbooks.changes(playbooks.run(lab, "bootstrap.yml"))
    return f"{changed} changes", not changed


def _scale_up(cluster: Cluster) -> tuple[str, bool]:
    began = time.time()
    seconds = set_crowd(cluster, CROWD)
    failed = failed_adds(cluster, began)
    pods = cluster.kubectl.get("pods", f"--selector=app={workload.CROWD}")
    addresses = Counter(pod["status"]["podIP"] for pod in pods)
    twice = [address for address, count in addresses.items() if count > 1]
    return f"all Ready after {seconds:.1f} s, {failed} failed ADDs, addresses twice: {twice or 'none'}", not twice
