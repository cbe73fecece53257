# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The registry's rules without a real etcd: which subnet a node gets, the keys, and when a claim is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.allocator import lost_reason, plan_claims, stale_releases
from ansible_collections.evio.cni.plugins.module_utils.claims.model import (
    Claim,
    ClaimError,
    LocalClaim,
    PoolConfig,
    Released,
    Request,
    Search,
    Snapshot,
)
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry, plan_on_empty
from ansible_collections.evio.cni.plugins.module_utils.claims.schema import (
    Keys,
    decode_claim,
    decode_pool_config,
    encode_claim,
    encode_pool_config,
)
from ansible_collections.evio.cni.plugins.module_utils.claims.upstream import parse_upstream_keys
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Get, KeyValue, TxnResult
from ansible_collections.evio.cni.plugins.module_utils.subnets import Pool, parse_pools
from ansible_collections.evio.cni.tests.unit.memory_etcd import MemoryEtcd

FOUR = parse_pools("10.244.0.0/16", 2)
CLAIM = Claim("node1", "m1", ("10.244.0.0/24",), 1000.0, 7)


def ask(*names: str) -> list[Request]:
    return [Request(name, f"machine-of-{name}") for name in names]


def plan(requests: list[Request], config: PoolConfig, snapshot: Snapshot, *, now: float = 10_000.0) -> dict[str, str]:
    searches = {pool.pod_cidr: snapshot.search(pool) for pool in config.pools}
    return {
        node: ",".join(claim.cidrs)
        for node, claim in plan_claims(requests, config, snapshot, searches, now=now).items()
    }


def test_lowest_free_subnet_comes_first() -> None:
    held = Snapshot(claims={"node1": replace(CLAIM, cidrs=("10.244.64.0/18",))})
    assert plan(ask("node2", "node3"), PoolConfig(FOUR), held) == {"node2": "10.244.0.0/18", "node3": "10.244.128.0/18"}


def test_only_subnets_in_the_searched_places_are_given_out() -> None:
    searches = {"10.244.0.0/16": Search((range(2, 4),), frozenset({2}))}
    planned = plan_claims(ask("node1"), PoolConfig(FOUR), Snapshot(), searches, now=1.0)
    assert planned["node1"].cidrs == ("10.244.192.0/18",)


def test_released_subnets_come_after_unused_ones_and_the_first_released_comes_first() -> None:
    snapshot = Snapshot(released={"10.244.0.0/18": Released("a", 500.0), "10.244.64.0/18": Released("b", 400.0)})
    planned = plan(ask("n1", "n2", "n3", "n4"), PoolConfig(FOUR), snapshot)
    assert list(planned.values()) == ["10.244.128.0/18", "10.244.192.0/18", "10.244.64.0/18", "10.244.0.0/18"]


def test_exhausted_pool_tells_when_the_first_quarantine_ends() -> None:
    snapshot = Snapshot(released={"10.244.0.0/18": Released("a", 9_000.0)})
    with pytest.raises(
        ClaimError, match=r"n4: no subnet of 10\.244\.0\.0/16 is free; 1 are in quarantine, the first for "
    ):
        plan(ask("n1", "n2", "n3", "n4"), PoolConfig(FOUR), snapshot)


def test_no_node_gets_a_reserved_subnet_or_the_pin_of_another_node() -> None:
    config = PoolConfig(FOUR, ("10.244.0.0/20",), {"node9": ("10.244.64.0/18",)})
    assert plan(ask("node1", "node9"), config, Snapshot()) == {"node1": "10.244.128.0/18", "node9": "10.244.64.0/18"}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request("a/b", "m"), "cannot be a key"),
        (Request("node1", ""), "has no machine-id"),
        (Request("node1", "m", ("10.9.0.0/18",)), "is no subnet of"),
        (Request("node1", "m", ("10.244.0.0/18",)), "but 10.244.0.0/20 is reserved"),
        (Request("node1", "m", ("10.244.64.0/18",)), "which node9 has"),
        (Request("node9", "m", ("10.244.128.0/18",)), "is pinned to both"),
    ],
)
def test_impossible_request_is_refused_and_the_reason_named(request_: Request, words: str) -> None:
    config = PoolConfig(FOUR, ("10.244.0.0/20",), {"node9": ("10.244.64.0/18",)})
    with pytest.raises(ClaimError, match=words):
        plan([request_], config, Snapshot())


def test_keys_sort_in_the_order_of_their_subnets() -> None:
    keys = Keys("kubernetes")
    subnets = ["10.2.0.0/24", "10.10.0.0/24", "10.10.9.0/24", "10.10.10.0/24"]
    assert [keys.subnet(cidr) for cidr in subnets] == sorted(keys.subnet(cidr) for cidr in subnets)
    assert keys.subnet("fd00:1::/64") == "/evio/kubernetes/subnets/fd00:0001:0000:0000:0000:0000:0000:0000"


@pytest.mark.parametrize("pool", [*parse_pools("10.244.0.0/16,fd00:1::/48", "8,16"), Pool("255.255.0.0/16", 8)])
def test_key_tells_its_subnets_index_and_a_range_of_keys_has_a_range_of_indexes(pool: Pool) -> None:
    keys = Keys("kubernetes")
    for place in (0, 1, 100, pool.size - 1):
        assert keys.place(pool, keys.subnet(pool.subnet(place).cidr)) == place
    start, end = keys.places(pool, range(3, 7))
    inside = [place for place in range(12) if start <= keys.subnet(pool.subnet(place).cidr) < end]
    assert inside == [3, 4, 5, 6]
    start, end = keys.places(pool, range(pool.size - 1, pool.size))
    assert start <= keys.subnet(pool.subnet(pool.size - 1).cidr) < end


@pytest.mark.parametrize("cluster", ["", "a/b", "..", "a b"])
def test_cluster_name_that_cannot_be_part_of_a_key_is_refused(cluster: str) -> None:
    with pytest.raises(ClaimError, match="cannot be a key in etcd"):
        Keys(cluster)


def test_encoded_values_decode_to_the_same() -> None:
    config = PoolConfig(FOUR, ("10.96.0.0/12",), {"node1": ("10.244.0.0/18",)})
    assert decode_pool_config(encode_pool_config(config)) == config
    assert decode_claim("node1", encode_claim(CLAIM), 7) == CLAIM


@pytest.mark.parametrize("text", ["no json", "[]", '{"v": 99}'])
def test_value_of_another_schema_is_refused(text: str) -> None:
    with pytest.raises(ClaimError):
        decode_pool_config(text)


def test_released_subnets_of_another_size_are_forgotten() -> None:
    snapshot = Snapshot(released={"10.244.0.0/18": Released("a", 1.0), "fd00::/62": Released("a", 1.0)})
    assert stale_releases(PoolConfig(FOUR), snapshot) == []
    assert stale_releases(PoolConfig(parse_pools("10.244.0.0/16", 3)), snapshot) == ["10.244.0.0/18"]


CONFIGURED = LocalClaim(("10.244.0.0/24",), 7)


@pytest.mark.parametrize(
    ("claim", "revision", "words"),
    [
        (None, 9, "etcd has no claim of it: it was released, or etcd was wiped or restored"),
        (replace(CLAIM, cidrs=("10.244.9.0/24",)), 9, "etcd has 10.244.9.0/24 for it"),
        (replace(CLAIM, epoch=3), 6, "etcd is only at revision 6: it was wiped, or restored from an older snapshot"),
    ],
)
def test_lost_claim_has_a_reason(claim: Claim | None, revision: int, words: str) -> None:
    assert lost_reason(CONFIGURED, claim, revision) == words


@pytest.mark.parametrize("claim", [CLAIM, replace(CLAIM, epoch=9, cidrs=(*CLAIM.cidrs, "fd00::/62"))])
def test_claim_that_etcd_has_or_has_extended_is_not_lost(claim: Claim) -> None:
    assert lost_reason(CONFIGURED, claim, 9) is None


def test_released_node_that_is_still_set_up_gets_no_other_subnet_until_restored() -> None:
    registry = Registry(MemoryEtcd(), "kubernetes")  # type: ignore[arg-type]
    first = registry.claim(ask("node1", "node2"), FOUR).claims["node1"]
    registry.release(["node1"])
    known = replace(ask("node1")[0], configured=LocalClaim(first.cidrs, first.epoch))
    with pytest.raises(ClaimError, match=r"node node1 is set up with 10\.244\.0\.0/18 at epoch \d+, but etcd has no"):
        registry.claim([known, *ask("node3")], FOUR, quarantine=0)
    assert list(registry.read().claims) == ["node2"]
    restored = registry.claim([replace(known, restore=True)], FOUR).claims["node1"]
    assert restored.cidrs == first.cidrs
    assert restored.epoch > first.epoch


def test_subnet_that_another_node_has_meanwhile_cannot_be_restored() -> None:
    registry = Registry(MemoryEtcd(), "kubernetes")  # type: ignore[arg-type]
    registry.claim(ask("node2"), FOUR)
    lost = replace(ask("node1")[0], configured=LocalClaim(("10.244.0.0/18",), 1), restore=True)
    with pytest.raises(ClaimError, match=r"node1 is pinned to 10\.244\.0\.0/18, which node2 has"):
        registry.claim([lost], FOUR)


def test_plan_on_empty_keeps_the_subnets_that_nodes_are_set_up_with() -> None:
    known = replace(ask("node2")[0], configured=LocalClaim(("10.244.0.0/18",), 5))
    planned = plan_on_empty([*ask("node1"), known], FOUR).claims
    assert {node: claim.cidrs for node, claim in planned.items()} == {
        "node1": ("10.244.64.0/18",),
        "node2": ("10.244.0.0/18",),
    }


def test_second_family_keeps_the_first_and_raises_the_epoch() -> None:
    registry = Registry(MemoryEtcd(), "kubernetes")  # type: ignore[arg-type]
    first = registry.claim(ask("node1"), FOUR).claims["node1"]
    second = registry.claim(ask("node1"), parse_pools("10.244.0.0/16,fd00::/60", 2)).claims["node1"]
    assert second.cidrs == (*first.cidrs, "fd00::/62")
    assert second.epoch > first.epoch


@pytest.mark.parametrize(
    ("used", "nodes", "calls"),
    [(range(65535), 1, 4), (range(0), 64, 5), (range(0), 1, 4), (range(30_000, 65_536), 1, 4)],
)
def test_claims_in_a_pool_of_65536_take_few_calls(used: range, nodes: int, calls: int) -> None:
    etcd, [pool] = MemoryEtcd(), parse_pools("10.0.0.0/8", 16)
    registry = Registry(etcd, "kubernetes")  # type: ignore[arg-type]
    registry.claim(ask("first"), [pool])
    registry.release(["first"])
    key = Keys("kubernetes").subnet
    existing = etcd.pairs["/evio/kubernetes/pool"]
    etcd.pairs.pop("/evio/kubernetes/released/010.000.000.000")
    keys = [key(pool.subnet(place).cidr) for place in used]
    etcd.pairs.update({one: replace(existing, key=one, value="{}") for one in keys})
    etcd.calls = 0
    outcome = registry.claim(ask(*(f"node{number}" for number in range(nodes))), [pool])
    assert etcd.calls <= calls
    free = next(place for place in range(pool.size) if place not in used)
    assert outcome.claims["node0"].cidrs == (pool.subnet(free).cidr,)


def test_second_claim_takes_one_call() -> None:
    etcd = MemoryEtcd()
    registry = Registry(etcd, "kubernetes")  # type: ignore[arg-type]
    registry.claim(ask("node1"), FOUR)
    etcd.calls = 0
    registry.claim(ask("node1"), FOUR)
    assert etcd.calls == 1


def test_subnets_are_read_from_upstreams_keys() -> None:
    keys = ["/evpn/10.244.3.2,10.244.3.254,10.244.3.1/16", "/evpn/10.244.1.66,10.244.1.126,10.244.1.65/16"]
    assert set(parse_upstream_keys([*keys, "/evpn/evio-lock/5"])) == {"10.244.3.0/24", "10.244.1.64/26"}
    with pytest.raises(ClaimError, match="is no key as upstream's generator writes them"):
        parse_upstream_keys(["/evpn/10.244.3.2,10.244.3.200,10.244.3.1/16"])


class Rival(MemoryEtcd):
    """An etcd in which another client takes the last free subnet of the first block after it was counted."""

    def __init__(self, subnet: str) -> None:
        super().__init__()
        self.subnet = subnet

    def txn(self, compare: Any, success: Any, failure: Any = ()) -> TxnResult:
        result = super().txn(compare, success, failure)
        if any(isinstance(operation, Get) and operation.count_only for operation in success):
            self.pairs[self.subnet] = KeyValue(self.subnet, "{}", self.revision, self.revision)
        return result


def test_block_that_another_client_fills_meanwhile_is_not_mistaken_for_a_full_pool() -> None:
    [pool], keys = parse_pools("10.0.0.0/8", 12), Keys("kubernetes")
    subnets = [keys.subnet(pool.subnet(place).cidr) for place in range(1024)]
    etcd = Rival(subnets[1023])
    etcd.pairs.update({key: KeyValue(key, "{}", 1, 1) for key in subnets[:1023]})
    outcome = Registry(etcd, "kubernetes").claim(ask("node1"), [pool])  # type: ignore[arg-type]
    assert outcome.claims["node1"].cidrs == (pool.subnet(1024).cidr,)
