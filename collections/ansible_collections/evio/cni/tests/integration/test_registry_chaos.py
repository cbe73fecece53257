# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Three members; clients and members are killed or cut off: no recorded claim is lost, no subnet given twice."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.model import Request
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd
from ansible_collections.evio.cni.plugins.module_utils.subnets import parse_pools

from .etcd_server import EtcdCluster
from .ovs_daemons import in_namespace, inside_namespace, network_namespace

pytestmark = pytest.mark.root

COLLECTIONS = Path(__file__).resolve().parents[5]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[EtcdCluster]:
    cluster = EtcdCluster(tmp_path, [None] * 3)
    try:
        yield cluster.start()
    finally:
        cluster.stop()


class Segment:
    """A layer-2 segment: a namespace for each member, connected by a bridge in the namespace of the clients."""

    def __init__(self, stack: contextlib.ExitStack, size: int) -> None:
        self.netns = stack.enter_context(network_namespace("eve-"))
        self.places = [(stack.enter_context(network_namespace("eve-")), f"10.99.0.{n + 1}") for n in range(size)]
        self._ip("link", "add", "segment", "type", "bridge")
        self._ip("link", "set", "segment", "up")
        self._ip("address", "add", "10.99.0.254/24", "dev", "segment")
        for number, (netns, address) in enumerate(self.places):
            self._ip("link", "add", f"m{number}", "type", "veth", "peer", "name", "eth0", "netns", netns)
            self._ip("link", "set", f"m{number}", "master", "segment", "up")
            for command in (["link", "set", "lo", "up"], ["link", "set", "eth0", "up"]):
                in_namespace(netns, "ip", *command)
            in_namespace(netns, "ip", "address", "add", f"{address}/24", "dev", "eth0")

    def cut(self, number: int) -> None:
        """Disconnect a member from clients and members; its process keeps running."""
        self._ip("link", "set", f"m{number}", "down")

    def reconnect(self, number: int) -> None:
        """Undo ``cut``."""
        self._ip("link", "set", f"m{number}", "up")

    def _ip(self, *arguments: str) -> None:
        in_namespace(self.netns, "ip", *arguments)


class Worker:
    """A client process that is started again after each kill, until all of its nodes are claimed."""

    def __init__(self, directory: Path, cluster: EtcdCluster, number: int, nodes: int, netns: str | None) -> None:
        self._enter = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
        self.record = directory / f"worker{number}"
        urls = ",".join(cluster.access.endpoints)
        self._arguments = [str(self.record), "chaos", str(number * nodes), str(nodes), urls]
        self.kills = 0
        self.start()

    def start(self) -> None:
        module = "ansible_collections.evio.cni.tests.integration.registry_worker"
        self._process = subprocess.Popen(
            [*self._enter, sys.executable, "-m", module, *self._arguments],
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

    def recorded(self) -> dict[str, str]:
        lines = self.record.read_text().splitlines()
        assert all(line.count("=") == 1 for line in lines)
        return {node: cidr for node, _equals, cidr in (line.partition("=") for line in lines)}


def run_chaos(
    directory: Path,
    cluster: EtcdCluster,
    *,
    workers: int,
    nodes: int,
    seed: int,
    netns: str | None = None,
    disturb: Callable[[random.Random], bool],
) -> tuple[int, int]:
    """Return the number of killed clients, and of disturbances of etcd. Assert that each node has its own subnet."""
    chance = random.Random(seed)
    running = [Worker(directory, cluster, number, nodes, netns) for number in range(workers)]
    disturbances = 0
    try:
        while any(worker.is_running() for worker in running):
            time.sleep(chance.uniform(0.2, 0.6))
            victim = chance.choice(running)
            if victim.is_running():
                victim.kill()
                victim.start()
            disturbances += disturb(chance)
        for worker in running:
            worker.finish()
    finally:
        for worker in running:
            if worker.is_running():
                worker.kill()
    recorded = [claim for worker in running for claim in worker.recorded().items()]
    assert len({node for node, _cidr in recorded}) == len({cidr for _node, cidr in recorded}) == workers * nodes
    return sum(worker.kills for worker in running), disturbances


def kill_members(cluster: EtcdCluster) -> Callable[[random.Random], bool]:
    def disturb(chance: random.Random) -> bool:
        if chance.random() >= 0.4:
            return False
        member = chance.choice(cluster.members)
        member.kill()
        time.sleep(chance.uniform(0.0, 0.5))
        member.launch()
        return True

    return disturb


def claims_of(cluster: EtcdCluster) -> dict[str, tuple[str, ...]]:
    with Etcd(cluster.access) as etcd:
        return {node: claim.cidrs for node, claim in Registry(etcd, "chaos").read().claims.items()}


def recorded_by_all(directory: Path) -> dict[str, tuple[str, ...]]:
    lines = [line for record in directory.glob("worker*") for line in record.read_text().splitlines()]
    return {node: (cidr,) for node, _equals, cidr in (line.partition("=") for line in lines)}


def test_killed_clients_and_members_lose_no_claim_and_give_no_subnet_twice(
    tmp_path: Path, cluster: EtcdCluster
) -> None:
    client_kills, _member_kills = run_chaos(
        tmp_path, cluster, workers=3, nodes=80, seed=1, disturb=kill_members(cluster)
    )
    assert client_kills > 0
    assert claims_of(cluster) == recorded_by_all(tmp_path)


@pytest.mark.long
def test_sixteen_workers_and_members_that_are_killed(tmp_path: Path, cluster: EtcdCluster) -> None:
    client_kills, member_kills = run_chaos(
        tmp_path, cluster, workers=16, nodes=120, seed=2, disturb=kill_members(cluster)
    )
    assert client_kills > 5
    assert member_kills > 2
    assert claims_of(cluster) == recorded_by_all(tmp_path)


def run_partitions(directory: Path, *, workers: int, nodes: int, seed: int) -> tuple[int, int]:
    """Do run_chaos with members that are cut off from the other members and from the clients for a while."""
    with contextlib.ExitStack() as stack:
        segment = Segment(stack, 3)
        cluster = EtcdCluster(directory, segment.places)
        stack.callback(cluster.stop)
        cluster.launch()

        def disturb(chance: random.Random) -> bool:
            number = chance.randrange(3)
            segment.cut(number)
            time.sleep(chance.uniform(0.5, 3.0))
            segment.reconnect(number)
            return True

        counts = run_chaos(
            directory, cluster, workers=workers, nodes=nodes, seed=seed, netns=segment.netns, disturb=disturb
        )
        # Each member alone has every recorded claim: a member that was cut off has caught up once it answers.
        with inside_namespace(segment.netns):
            for member in cluster.members:
                member.await_answer()
        for url in cluster.access.endpoints:
            command = ["etcdctl", f"--endpoints={url}", "get", "--prefix", "/evio/chaos/nodes/"]
            found = in_namespace(segment.netns, "env", "ETCDCTL_API=3", *command).stdout
            for node, (cidr,) in recorded_by_all(directory).items():
                assert f"/nodes/{node}\n" in found
                assert cidr in found.partition(f"/nodes/{node}\n")[2].partition("\n")[0]
        return counts


def test_cut_off_members_lose_no_claim_and_give_no_subnet_twice(tmp_path: Path) -> None:
    _client_kills, cuts = run_partitions(tmp_path, workers=3, nodes=120, seed=3)
    assert cuts > 0


@pytest.mark.long
def test_sixteen_workers_and_members_that_are_cut_off(tmp_path: Path) -> None:
    client_kills, cuts = run_partitions(tmp_path, workers=16, nodes=120, seed=4)
    assert client_kills > 5
    assert cuts > 5


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
