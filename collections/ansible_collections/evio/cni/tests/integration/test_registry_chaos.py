# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Three members, clients and members killed while they work: no claim that was told is lost, none is there twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims import Request
from ansible_collections.evio.cni.plugins.module_utils.etcd import Etcd
from ansible_collections.evio.cni.plugins.module_utils.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.subnets import parse_pools

from .etcd_server import EtcdCluster

pytestmark = pytest.mark.root

COLLECTIONS = Path(__file__).resolve().parents[5]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    cluster = EtcdCluster(tmp_path, 3)
    try:
        yield cluster.start()
    finally:
        cluster.stop()


class Worker:
    """One client process after another, until all its nodes are claimed."""

    def __init__(self, directory: Path, cluster: EtcdCluster, number: int, nodes: int) -> None:
        self.notes = directory / f"worker{number}"
        urls = ",".join(cluster.access.endpoints)
        self._arguments = [str(self.notes), "chaos", str(number * nodes), str(nodes), urls]
        self.kills = 0
        self.start()

    def start(self) -> None:
        module = "ansible_collections.evio.cni.tests.integration.registry_worker"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *self._arguments],
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS), "PYTHONDONTWRITEBYTECODE": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)
        self.kills += 1

    def finish(self) -> None:
        _output, errors = self._process.communicate(timeout=120)
        assert self._process.returncode == 0, errors

    def told(self) -> dict[str, str]:
        lines = self.notes.read_text().splitlines()
        assert all(line.count("=") == 1 for line in lines)
        return {node: cidr for node, _equals, cidr in (line.partition("=") for line in lines)}


def run_chaos(directory: Path, cluster: EtcdCluster, *, workers: int, nodes: int, seed: int) -> tuple[int, int]:
    """How many clients and members were killed; asserts that every claim is there, as it was told, and once."""
    chance = random.Random(seed)
    running = [Worker(directory, cluster, number, nodes) for number in range(workers)]
    member_kills = 0
    try:
        while any(worker.is_running() for worker in running):
            time.sleep(chance.uniform(0.2, 0.6))
            victim = chance.choice(running)
            if victim.is_running():
                victim.kill()
                victim.start()
            if chance.random() < 0.4:
                member = chance.choice(cluster.members)
                member.kill()
                time.sleep(chance.uniform(0.0, 0.5))
                member.launch()
                member_kills += 1
        for worker in running:
            worker.finish()
    finally:
        for worker in running:
            if worker.is_running():
                worker.kill()
    told = {node: cidr for worker in running for node, cidr in worker.told().items()}
    with Etcd(cluster.access) as etcd:
        claims = Registry(etcd, "chaos").read().claims
    assert {node: claim.cidrs for node, claim in claims.items()} == {node: (cidr,) for node, cidr in told.items()}
    assert len(told) == len(set(told.values())) == workers * nodes
    return sum(worker.kills for worker in running), member_kills


def test_killed_clients_and_members_lose_no_claim_and_give_none_twice(tmp_path: Path, cluster: EtcdCluster) -> None:
    client_kills, _member_kills = run_chaos(tmp_path, cluster, workers=3, nodes=80, seed=1)
    assert client_kills > 0


@pytest.mark.long
def test_chaos_of_sixteen_workers(tmp_path: Path, cluster: EtcdCluster) -> None:
    client_kills, member_kills = run_chaos(tmp_path, cluster, workers=16, nodes=120, seed=2)
    assert client_kills > 5
    assert member_kills > 2


def test_majority_serves_and_minority_does_not(cluster: EtcdCluster) -> None:
    pools = parse_pools("10.244.0.0/16", 8)
    cluster.members[0].kill()
    with Etcd(cluster.access) as etcd:
        outcome = Registry(etcd, "majority").claim([Request("node1", "m1")], pools)
        assert outcome.claims["node1"].cidrs == ("10.244.0.0/24",)
    cluster.members[1].kill()
    with Etcd(cluster.access) as etcd, pytest.raises(Exception, match="etcd: ") as failure:
        Registry(etcd, "majority").claim([Request("node2", "m2")], pools)
    assert cluster.members[0].url in str(failure.value)
    cluster.members[0].launch()
    cluster.members[0].await_answer()
    with Etcd(cluster.access) as etcd:
        registry = Registry(etcd, "majority")
        assert list(registry.read().claims) == ["node1"]
        assert registry.claim([Request("node2", "m2")], pools).claims["node2"].cidrs == ("10.244.1.0/24",)
