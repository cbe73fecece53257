# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An etcd that was wiped or restored from an old snapshot, or is slow; clocks that jump. Nodes keep their subnets.

test_registry has an etcd that is down, full or refuses; test_registry_chaos has members that are killed or cut off.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.model import ClaimError, LocalClaim, Request
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Outcome, Registry
from ansible_collections.evio.cni.plugins.module_utils.etcd.access import EtcdError
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd, Put, TxnResult
from ansible_collections.evio.cni.plugins.module_utils.subnets import parse_pools

from .etcd_server import EtcdServer

pytestmark = pytest.mark.root

POOLS = parse_pools("10.244.0.0/16", 8)
CLUSTER = "faults"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path, tls=False)
    try:
        yield server.start()
    finally:
        server.stop()


class Node:
    """A node that remembers its claim, as its conflist does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.configured: LocalClaim | None = None

    def claim(self, server: EtcdServer, *, restore: bool = False, clock: float | None = None) -> Outcome:
        request = Request(self.name, f"machine-of-{self.name}", configured=self.configured, restore=restore)
        with Etcd(server.access) as etcd:
            registry = Registry(etcd, CLUSTER, clock=time.time if clock is None else lambda: clock)
            outcome = registry.claim([request], POOLS)
        claim = outcome.claims[self.name]
        self.configured = LocalClaim(claim.cidrs, claim.epoch)
        return outcome

    @property
    def cidrs(self) -> tuple[str, ...]:
        assert self.configured is not None
        return self.configured.cidrs


def claims(server: EtcdServer) -> dict[str, tuple[str, ...]]:
    with Etcd(server.access) as etcd:
        return {node: claim.cidrs for node, claim in Registry(etcd, CLUSTER).read().claims.items()}


def release(server: EtcdServer, node: Node, *, clock: float) -> None:
    with Etcd(server.access) as etcd:
        Registry(etcd, CLUSTER, clock=lambda: clock).release([node.name])


def test_wiped_etcd_is_refused_and_nodes_keep_their_subnets(server: EtcdServer) -> None:
    first, second = Node("node1"), Node("node2")
    first.claim(server)
    second.claim(server)
    before = second.configured
    server.stop()
    shutil.rmtree(server.directory / "data")
    server.start()
    with pytest.raises(
        ClaimError,
        match=r"node2 is set up with 10\.244\.1\.0/24 at epoch \d+, but etcd is only at revision 1: .* wiped",
    ):
        second.claim(server)
    assert second.configured == before
    assert claims(server) == {}
    second.claim(server, restore=True)
    assert second.cidrs == ("10.244.1.0/24",)
    with pytest.raises(ClaimError, match="node1 is set up with"):
        first.claim(server)
    first.claim(server, restore=True)
    assert claims(server) == {"node1": ("10.244.0.0/24",), "node2": ("10.244.1.0/24",)}
    assert first.claim(server).changed == ()


def test_etcd_restored_from_a_snapshot_older_than_a_claim_is_refused(server: EtcdServer) -> None:
    first, second = Node("node1"), Node("node2")
    first.claim(server)
    server.stop()
    shutil.copytree(server.directory / "data", server.directory / "snapshot")
    server.start()
    second.claim(server)
    server.stop()
    shutil.rmtree(server.directory / "data")
    (server.directory / "snapshot").rename(server.directory / "data")
    server.start()
    assert first.claim(server).changed == ()
    with pytest.raises(ClaimError, match="was wiped, or restored from an older snapshot"):
        second.claim(server)
    # When etcd's revision has passed the claim's, only the missing claim shows that etcd was restored.
    with Etcd(server.access) as etcd:
        other = Registry(etcd, "another")
        for number in range(5):
            other.claim([Request(f"node{number}", "m")], POOLS)
    with pytest.raises(ClaimError, match="etcd has no claim of it"):
        second.claim(server)
    second.claim(server, restore=True)
    assert claims(server) == {"node1": ("10.244.0.0/24",), "node2": ("10.244.1.0/24",)}


def test_silent_etcd_takes_no_longer_than_the_deadline(server: EtcdServer) -> None:
    node = Node("node1")
    node.claim(server)
    server.pause()
    started = time.monotonic()
    try:
        with Etcd(replace(server.access, timeout=0.5)) as etcd, pytest.raises(EtcdError, match="did not answer within"):
            Registry(etcd, CLUSTER).claim([Request("node2", "m")], POOLS)
    finally:
        server.resume()
    assert time.monotonic() - started < 3
    assert node.claim(server).changed == ()


class PausedAtCommit(Etcd):
    """A connection whose server is paused just before the first write is sent."""

    def __init__(self, server: EtcdServer) -> None:
        super().__init__(replace(server.access, timeout=1.0))
        self._server = server

    def txn(self, compare: Any, success: Any, failure: Any = ()) -> TxnResult:
        if any(isinstance(operation, Put) for operation in success):
            self._server.pause()
        return super().txn(compare, success, failure)


def test_claim_without_an_answer_is_made_once(server: EtcdServer) -> None:
    """The client gives up while its write waits in a socket: etcd commits it later, and the next run finds it."""
    Node("node1").claim(server)
    try:
        with PausedAtCommit(server) as etcd, pytest.raises(EtcdError, match="did not answer within 1 s"):
            Registry(etcd, CLUSTER).claim([Request("node2", "machine-of-node2")], POOLS)
    finally:
        server.resume()
    Node("node2").claim(server)
    assert claims(server) == {"node1": ("10.244.0.0/24",), "node2": ("10.244.1.0/24",)}


def test_clock_that_jumps_back_lengthens_the_quarantine_and_takes_no_claim(server: EtcdServer) -> None:
    first, second, third = Node("node1"), Node("node2"), Node("node3")
    first.claim(server, clock=1_000_000.0)
    second.claim(server, clock=1_000_000.0)
    release(server, first, clock=1_000_000.0)
    third.claim(server, clock=1.0)
    assert third.cidrs == ("10.244.2.0/24",)
    assert second.claim(server, clock=1.0).changed == ()


def test_clock_that_jumps_forward_takes_no_claim(server: EtcdServer) -> None:
    node = Node("node1")
    node.claim(server, clock=1_000.0)
    Node("node2").claim(server, clock=1e11)
    assert node.claim(server, clock=1e11).changed == ()
    assert claims(server) == {"node1": ("10.244.0.0/24",), "node2": ("10.244.1.0/24",)}
