# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Claims in a real etcd: no two nodes get one subnet, clients may race, and each failure has a clear message."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.backup import decode_backup, encode_backup
from ansible_collections.evio.cni.plugins.module_utils.claims.model import (
    ClaimError,
    LocalClaim,
    PoolConfig,
    Request,
    subnets_of,
)
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.claims.reshape import Changes
from ansible_collections.evio.cni.plugins.module_utils.etcd.access import EtcdError
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Delete, Etcd, Get, Put
from ansible_collections.evio.cni.plugins.module_utils.pki import issue
from ansible_collections.evio.cni.plugins.module_utils.subnets import Pool, parse_pools

from .etcd_server import EtcdServer

pytestmark = pytest.mark.root

POOLS = parse_pools("10.244.0.0/16", 8)
DUAL = parse_pools("10.244.0.0/16,fd00:10:244::/48", "8,16")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def etcd(server: EtcdServer) -> Iterator[Etcd]:
    with Etcd(server.access) as etcd:
        yield etcd


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(etcd: Etcd, clock: Clock, request: pytest.FixtureRequest) -> Registry:
    return Registry(etcd, request.node.name.replace("[", "-").replace("]", ""), clock=clock)


def fill(etcd: Etcd) -> None:
    """Write until the quota of a member is used up."""
    for number in range(100):
        try:
            etcd.txn([], [Put(f"/filler/{number}", "x" * 100_000)])
        except EtcdError:
            return
        time.sleep(0.02)  # etcd measures its database ten times a second.
    pytest.fail("10 MB did not fill a quota of 1 MiB")


def ask(*names: str) -> list[Request]:
    return [Request(name, f"machine-of-{name}") for name in names]


def cidrs(registry: Registry) -> dict[str, tuple[str, ...]]:
    return {node: claim.cidrs for node, claim in registry.read().claims.items()}


def test_nodes_get_the_lowest_free_subnets_in_their_order(registry: Registry) -> None:
    outcome = registry.claim(ask("node1", "node2", "node3"), POOLS)
    assert {node: claim.cidrs for node, claim in outcome.claims.items()} == {
        "node1": ("10.244.0.0/24",),
        "node2": ("10.244.1.0/24",),
        "node3": ("10.244.2.0/24",),
    }
    assert outcome.changed == ("node1", "node2", "node3")
    assert all(claim.epoch > 0 for claim in outcome.claims.values())


def test_second_claim_changes_nothing_and_keeps_the_epoch(registry: Registry) -> None:
    first = registry.claim(ask("node1", "node2"), POOLS)
    second = registry.claim(ask("node2", "node1"), POOLS)
    assert second.changed == ()
    assert not second.pool_changed
    assert second.claims == first.claims


def test_dry_run_predicts_the_claim(registry: Registry) -> None:
    planned = registry.claim(ask("node1", "node2"), POOLS, dry_run=True)
    assert registry.read().claims == {}
    done = registry.claim(ask("node1", "node2"), POOLS)
    assert planned.changed == done.changed
    assert {node: claim.cidrs for node, claim in planned.claims.items()} == cidrs(registry)


def test_all_nodes_are_claimed_in_one_transaction(registry: Registry) -> None:
    outcome = registry.claim(ask(*(f"node{number}" for number in range(62))), POOLS)
    assert len({claim.epoch for claim in outcome.claims.values()}) == 1


def test_nodes_that_do_not_fit_into_one_transaction_are_claimed_in_several(registry: Registry) -> None:
    outcome = registry.claim(ask(*(f"node{number}" for number in range(150))), POOLS)
    assert len({claim.cidrs for claim in outcome.claims.values()}) == 150
    assert len({claim.epoch for claim in outcome.claims.values()}) == 3


def test_one_impossible_request_claims_nothing(registry: Registry) -> None:
    small = parse_pools("10.244.0.0/16", 1)
    with pytest.raises(ClaimError, match=r"node3: no subnet of 10\.244\.0\.0/16 is free"):
        registry.claim(ask("node1", "node2", "node3"), small)
    assert registry.read().claims == {}


def test_other_machine_of_the_same_name_is_refused_until_confirmed_as_replacement(registry: Registry) -> None:
    first = registry.claim(ask("node1"), POOLS).claims["node1"]
    stranger = Request("node1", "other-machine")
    with pytest.raises(ClaimError, match="belongs to the machine machine-of-node1, not to other-machine"):
        registry.claim([stranger], POOLS)
    outcome = registry.claim([replace(stranger, replaced=True)], POOLS)
    assert outcome.claims["node1"].cidrs == first.cidrs
    assert outcome.claims["node1"].machine_id == "other-machine"
    assert outcome.claims["node1"].epoch > first.epoch


def test_renamed_node_takes_its_subnet_along(registry: Registry) -> None:
    first = registry.claim([Request("node1", "m1"), Request("node2", "m2")], POOLS).claims
    renamed = [Request("edge1", "m1", renamed_from="node1")]
    predicted = registry.claim(renamed, POOLS, dry_run=True)
    done = registry.claim(renamed, POOLS)
    again = registry.claim(renamed, POOLS)
    assert predicted.changed == done.changed == ("edge1",)
    assert predicted.claims["edge1"].cidrs == done.claims["edge1"].cidrs == first["node1"].cidrs
    assert again.changed == ()
    snapshot = registry.read()
    assert sorted(snapshot.claims) == ["edge1", "node2"]
    assert registry.claim([Request("node3", "m3")], POOLS).claims["node3"].cidrs == ("10.244.2.0/24",)


def test_nodes_move_to_another_pool_one_by_one(registry: Registry) -> None:
    """Both pools have claims meanwhile; nobody gets a subnet of the former one, and it is forgotten at last."""
    registry.claim(ask("node1", "node2"), POOLS)
    others = parse_pools("10.60.0.0/16", 8)
    with pytest.raises(ClaimError, match=r"move the nodes to this one with change_pool\.yml"):
        registry.claim(ask("node1"), others)
    assert registry.reshape(Changes(pools=others, keeps_former=True), dry_run=True).plan.pool_config.former == POOLS
    assert registry.reshape(Changes(pools=others, keeps_former=True)).changed
    assert not registry.reshape(Changes(pools=others, keeps_former=True)).changed
    with pytest.raises(ClaimError, match=r"node1 has 10\.244\.0\.0/24 and none of 10\.60\.0\.0/16"):
        registry.reshape(Changes(moved_nodes=("node1",)))
    old = LocalClaim(("10.244.0.0/24",), 1)
    outcome = registry.claim([Request("node1", "machine-of-node1", configured=old), *ask("node2", "node3")], others)
    assert outcome.former == POOLS
    assert cidrs(registry) == {
        "node1": ("10.244.0.0/24", "10.60.0.0/24"),
        "node2": ("10.244.1.0/24", "10.60.1.0/24"),
        "node3": ("10.60.2.0/24",),
    }
    claim = outcome.claims["node1"]
    assert [subnet.cidr for subnet in subnets_of(claim, others, old)] == ["10.244.0.0/24"]
    assert [subnet.cidr for subnet in subnets_of(claim, others)] == ["10.60.0.0/24"]
    assert registry.reshape(Changes(moved_nodes=("node1",))).moved == ("node1",)
    assert registry.claim(ask("node1", "node2"), others).former == POOLS
    assert registry.reshape(Changes(moved_nodes=("node1", "node2", "node3"))).moved == ("node2",)
    snapshot = registry.read()
    assert snapshot.pool_config == PoolConfig(others)
    assert sorted(snapshot.released) == ["10.244.0.0/24", "10.244.1.0/24"]
    assert cidrs(registry)["node2"] == ("10.60.1.0/24",)


def test_nodes_do_not_move_to_the_same_addresses_divided_otherwise(registry: Registry) -> None:
    registry.claim(ask("node1"), POOLS)
    with pytest.raises(ClaimError, match="these are the same addresses, divided otherwise"):
        registry.reshape(Changes(pools=parse_pools("10.244.0.0/15", 10), keeps_former=True))
    assert registry.read().pool_config == PoolConfig(POOLS)


def test_backup_between_two_pools_is_restored(registry: Registry, etcd: Etcd) -> None:
    registry.claim(ask("node1"), POOLS)
    others = parse_pools("10.60.0.0/16", 8)
    registry.reshape(Changes(pools=others, keeps_former=True))
    registry.claim(ask("node1"), others)
    backup = decode_backup(encode_backup(registry.backup()))
    before = registry.read()
    etcd.txn([], [Delete(pair) for pair in before.revisions])
    etcd.txn([], [Delete(f"/evio/{backup.cluster}/subnets/{part}") for part in ("010.244.000.000", "010.060.000.000")])
    registry.restore(backup, [])
    assert registry.read().pool_config == before.pool_config
    assert cidrs(registry) == {"node1": ("10.244.0.0/24", "10.60.0.0/24")}


def test_renamed_node_takes_its_pin_along(registry: Registry) -> None:
    registry.claim([Request("node1", "m1"), Request("node2", "m2")], POOLS)
    pins = {"node1": ("10.244.0.0/24",), "node2": ("10.244.1.0/24",)}
    registry.reshape(Changes(pins=pins))
    renamed = Request("edge1", "m1", ("10.244.0.0/24",), renamed_from="node1")
    predicted = registry.claim([renamed], POOLS, dry_run=True)
    assert registry.claim([renamed], POOLS).claims["edge1"].cidrs == predicted.claims["edge1"].cidrs
    config = registry.read().pool_config
    assert config is not None
    assert config.pins == {"edge1": pins["node1"], "node2": pins["node2"]}
    assert registry.claim([renamed], POOLS).changed == ()


def test_rename_of_another_machine_or_to_a_node_with_a_claim_is_refused(registry: Registry) -> None:
    registry.claim([Request("node1", "m1"), Request("node2", "m2")], POOLS)
    before = registry.read().claims
    with pytest.raises(ClaimError, match="belongs to the machine m1, not to m9"):
        registry.claim([Request("edge1", "m9", renamed_from="node1")], POOLS)
    with pytest.raises(ClaimError, match=r"node1 cannot be renamed to node2, which has 10\.244\.1\.0/24"):
        registry.claim([Request("node2", "m1", renamed_from="node1")], POOLS)
    assert registry.read().claims == before


def test_pinned_node_gets_its_subnet_and_a_conflicting_pin_is_refused(registry: Registry) -> None:
    pinned = Request("node9", "machine-of-node9", ("10.244.0.0/24",))
    outcome = registry.claim([*ask("node1"), pinned], POOLS)
    assert outcome.claims["node9"].cidrs == ("10.244.0.0/24",)
    assert outcome.claims["node1"].cidrs == ("10.244.1.0/24",)
    with pytest.raises(ClaimError, match=r"node2 is pinned to 10\.244\.0\.0/24, which node9 has"):
        registry.claim([Request("node2", "m", ("10.244.0.0/24",))], POOLS)
    with pytest.raises(ClaimError, match=r"node1 is pinned to 10\.244\.7\.0/24 but has 10\.244\.1\.0/24"):
        registry.claim([Request("node1", "machine-of-node1", ("10.244.7.0/24",))], POOLS)


def test_released_subnet_rests_then_comes_last(registry: Registry, clock: Clock) -> None:
    pools = parse_pools("10.244.0.0/16", 2)
    registry.claim(ask("node1", "node2"), pools)
    assert registry.release(["node1"]).changed == ("node1",)
    assert registry.release(["node1"]).changed == ()
    registry.claim(ask("node3", "node4"), pools)
    assert cidrs(registry)["node3"] == ("10.244.128.0/18",)
    with pytest.raises(ClaimError, match="1 are in quarantine, the first for another 3600 s"):
        registry.claim(ask("node5"), pools)
    clock.now += 3600
    assert registry.claim(ask("node5"), pools).claims["node5"].cidrs == ("10.244.0.0/18",)


def test_subnet_that_was_released_first_is_given_out_first(registry: Registry, clock: Clock) -> None:
    pools = parse_pools("10.244.0.0/16", 1)
    registry.claim(ask("node1", "node2"), pools)
    registry.release(["node2"])
    clock.now += 1
    registry.release(["node1"])
    clock.now += 4000
    assert registry.claim(ask("node3"), pools).claims["node3"].cidrs == ("10.244.128.0/17",)


def test_no_node_gets_a_subnet_of_a_reserved_network(registry: Registry) -> None:
    outcome = registry.claim(ask("node1"), POOLS, reserved=["10.244.0.0/22"])
    assert outcome.claims["node1"].cidrs == ("10.244.4.0/24",)


def test_second_family_is_added_to_nodes_with_a_subnet_of_the_first(registry: Registry) -> None:
    registry.claim(ask("node1", "node2"), POOLS)
    outcome = registry.claim(ask("node2", "node1"), DUAL)
    assert outcome.claims["node1"].cidrs == ("10.244.0.0/24", "fd00:10:244:1::/64")
    assert outcome.claims["node2"].cidrs == ("10.244.1.0/24", "fd00:10:244::/64")


@pytest.mark.parametrize("wanted", [("10.244.0.0/16", 9), ("10.245.0.0/16", 8), ("10.244.1.0/24", 0)])
def test_pool_that_does_not_hold_all_claims_is_refused_and_both_pools_named(
    registry: Registry, wanted: tuple[str, int]
) -> None:
    registry.claim(ask("node1"), POOLS)
    with pytest.raises(ClaimError, match="evio_pod_cidr and evio_node_bits") as raised:
        registry.claim(ask("node2"), parse_pools(*wanted))
    for word in (wanted[0], f"{wanted[1]} node bits", "10.244.0.0/16 with 8 node bits", "node1 has 10.244.0.0/24"):
        assert word in str(raised.value)


def test_pool_can_grow_if_it_holds_all_claims(registry: Registry) -> None:
    registry.claim(ask("node1", "node2"), parse_pools("10.244.0.0/16", 8))
    outcome = registry.claim(ask("node1", "node2", "node3"), parse_pools("10.240.0.0/12", 12))
    assert outcome.pool_changed
    assert outcome.claims["node2"].cidrs == ("10.244.1.0/24",)
    assert outcome.claims["node3"].cidrs == ("10.240.0.0/24",)
    assert registry.read().pool_config == PoolConfig((Pool("10.240.0.0/12", 12),))


def test_nothing_is_written_outside_the_prefix(etcd: Etcd) -> None:
    etcd.txn([], [Put("/registry/pods/a", "kept")])
    registry = Registry(etcd, "prefixed")
    registry.claim(ask("node1"), POOLS)
    registry.release(["node1"])
    keys = {pair.key for pair in etcd.txn([], [Get("/", prefix=True)]).ranges[0]}
    assert {key for key in keys if not key.startswith("/evio/")} == {"/registry/pods/a"}
    assert "/evio/prefixed/released/010.244.000.000" in keys
    etcd.txn([], [Delete("/registry/pods/a")])


def test_racing_clients_never_share_a_subnet(server: EtcdServer) -> None:
    problems: list[Exception] = []

    def claim_ten(worker: int) -> None:
        try:
            with Etcd(server.access) as etcd:
                for number in range(10):
                    Registry(etcd, "race").claim(ask(f"node{worker}-{number}"), POOLS)
        except Exception as error:
            problems.append(error)

    workers = [threading.Thread(target=claim_ten, args=(worker,)) for worker in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert problems == []
    with Etcd(server.access) as etcd:
        claims = Registry(etcd, "race").read().claims
    owners = [cidr for claim in claims.values() for cidr in claim.cidrs]
    assert len(owners) == len(set(owners)) == 80


def test_next_member_is_asked_if_one_is_dead(server: EtcdServer) -> None:
    with Etcd(replace(server.access, endpoints=("https://127.0.0.1:1", server.url))) as etcd:
        assert Registry(etcd, "failover").claim(ask("node1"), POOLS).changed == ("node1",)


def test_etcd_that_is_down_is_named(server: EtcdServer) -> None:
    with (
        Etcd(replace(server.access, endpoints=("https://127.0.0.1:1",))) as etcd,
        pytest.raises(EtcdError, match=r"https://127\.0\.0\.1:1 refuses connections: is etcd running there\?"),
    ):
        Registry(etcd, "down").read()


def test_wrong_ca_is_named(server: EtcdServer, tmp_path: Path) -> None:
    issue(str(tmp_path), "member", [])
    ca = str(tmp_path / "etcd/ca.crt")
    with (
        Etcd(replace(server.access, ca_cert=ca)) as etcd,
        pytest.raises(EtcdError, match=f"shows a certificate that cannot be verified with {ca}"),
    ):
        Registry(etcd, "ca").read()


def test_wrong_client_certificate_is_named(server: EtcdServer, tmp_path: Path) -> None:
    issue(str(tmp_path), "member", [])
    certificate = str(tmp_path / "apiserver-etcd-client.crt")
    key = str(tmp_path / "apiserver-etcd-client.key")
    with (
        Etcd(replace(server.access, client_cert=certificate, client_key=key)) as etcd,
        pytest.raises(EtcdError, match=f"refuses the client certificate {certificate}"),
    ):
        Registry(etcd, "client").read()


def test_missing_file_is_named_before_etcd_is_asked(server: EtcdServer) -> None:
    with pytest.raises(EtcdError, match=r"cannot read /nowhere/ca\.crt"):
        Etcd(replace(server.access, ca_cert="/nowhere/ca.crt"))


def test_full_etcd_says_how_to_mend_it(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path, quota_bytes=1 << 20).start()
    try:
        with Etcd(server.access) as etcd:
            registry = Registry(etcd, "full")
            registry.claim(ask("node1"), POOLS)
            fill(etcd)
            with pytest.raises(EtcdError, match=r"takes no writes, its space is used up.*etcdctl alarm disarm"):
                registry.claim(ask("node2"), POOLS)
            assert list(registry.read().claims) == ["node1"]
    finally:
        server.stop()


def test_registry_is_read_again_only_after_a_claim_or_a_release(registry: Registry, etcd: Etcd) -> None:
    assert registry.read_if_changed(0) is None
    registry.claim(ask("node1"), POOLS)
    first = registry.read_if_changed(0)
    assert first is not None
    assert list(first.claims) == ["node1"]
    etcd.txn([], [Put("/somebody/else", "x")])
    assert registry.read_if_changed(first.revision) is None
    registry.release(["node1"])
    second = registry.read_if_changed(first.revision)
    assert second is not None
    assert (dict(second.claims), list(second.released)) == ({}, ["10.244.0.0/24"])


def test_registry_is_read_again_from_an_etcd_whose_data_are_older(registry: Registry) -> None:
    registry.claim(ask("node1"), POOLS)
    found = registry.read_if_changed(1 << 40)
    assert found is not None
    assert list(found.claims) == ["node1"]
