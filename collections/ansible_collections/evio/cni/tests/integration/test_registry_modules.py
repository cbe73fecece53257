# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules of the registry with a real etcd: each change in check mode, for real, and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import MAX_TXN_OPS, Delete, Etcd, Get, Put

from .ansible_module import check_do_again, run_module
from .etcd_server import EtcdServer

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def etcd(server: EtcdServer, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options by which a module reaches etcd, with a cluster name for this test alone."""
    access = server.access
    return {
        "cluster": request.node.name,
        "endpoints": list(access.endpoints),
        "ca_cert": access.ca_cert,
        "client_cert": access.client_cert,
        "client_key": access.client_key,
    }


POOL = {"pod_cidr": "10.244.0.0/16", "node_bits": "8"}


def nodes(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "machine_id": f"machine-of-{name}"} for name in names]


def test_claim_and_release(etcd: dict[str, Any]) -> None:
    predicted, done, again = check_do_again("node_subnet", **POOL, subnet_requests=nodes("node1", "node2"), **etcd)
    assert predicted["subnets"]["node2"]["cidrs"] == done["subnets"]["node2"]["cidrs"] == ["10.244.1.0/24"]
    assert again["subnets"] == done["subnets"]
    assert done["diff"]["after"]["node1"] == "10.244.0.0/24"
    _predicted, released, _again = check_do_again(
        "node_subnet", state="absent", subnet_requests=[{"name": "node1"}], **etcd
    )
    assert released["claimed"] == ["node1"]
    assert "node1" not in released["diff"]["after"]


def test_pool_is_created_grown_and_keeps_its_reserved_networks(etcd: dict[str, Any]) -> None:
    check_do_again("subnet_pool", **POOL, reserved_cidrs=["10.244.0.0/23"], **etcd)
    done = run_module("node_subnet", **POOL, subnet_requests=nodes("node1"), **etcd)
    assert done["subnets"]["node1"]["cidrs"] == ["10.244.2.0/24"]
    check_do_again("subnet_pool", pod_cidr="10.240.0.0/12", node_bits="12", **etcd)
    info = run_module("subnet_pool_info", **etcd)
    assert info["reserved_cidrs"] == ["10.244.0.0/23"]
    [pool] = info["pools"]
    assert {key: pool[key] for key in ("size", "claimed", "reserved", "free")} == {
        "size": 4096,
        "claimed": 1,
        "reserved": 2,
        "free": 4093,
    }


def test_change_that_would_break_a_claim_is_refused_and_changes_nothing(etcd: dict[str, Any]) -> None:
    run_module("node_subnet", **POOL, subnet_requests=nodes("node1", "node2"), **etcd)
    before = run_module("subnet_pool_info", **etcd)
    for arguments, words in (
        ({"pod_cidr": "10.245.0.0/16", "node_bits": "8"}, "would lose their place (node1 has 10.244.0.0/24"),
        ({"pod_cidr": "10.244.0.0/16", "node_bits": "9"}, "would lose their place"),
        ({"reserved_cidrs": ["10.244.1.0/24"]}, "10.244.1.0/24 cannot be reserved: node2 has 10.244.1.0/24"),
        ({"pins": {"node3": "10.244.1.0/24"}}, "node node3 is pinned to 10.244.1.0/24, which node2 has"),
        ({"pins": {"node1": "10.244.9.0/24"}}, "pinned to 10.244.9.0/24 but has 10.244.0.0/24"),
        ({"pins": {"node3": "10.9.0.0/24"}}, "which is no subnet of 10.244.0.0/16 with 8 node bits"),
        ({"live_nodes": []}, "live_nodes names no node"),
    ):
        refused = run_module("subnet_pool", **arguments, **etcd)
        assert refused.get("failed"), arguments
        assert words in refused["msg"]
    after = run_module("subnet_pool_info", **etcd)
    for info in (before, after):
        for claim in info["claims"]:
            del claim["age"]
    assert {key: after[key] for key in ("pools", "claims", "pins")} == {
        key: before[key] for key in ("pools", "claims", "pins")
    }


def test_subnets_of_other_nodes_are_returned_and_those_without_a_claim(etcd: dict[str, Any]) -> None:
    run_module("node_subnet", **POOL, subnet_requests=nodes("node1", "node2", "node3"), **etcd)
    run_module("node_subnet", state="absent", subnet_requests=nodes("node2"), **etcd)
    done = run_module("node_subnet", **POOL, subnet_requests=nodes("node1"), other_nodes=["node2", "node3"], **etcd)
    assert (done["changed"], done["unclaimed"]) == (False, ["node2"])
    assert done["other_subnets"] == {"node3": ["10.244.2.0/24"]}


def test_lost_claims_are_returned_by_node(etcd: dict[str, Any]) -> None:
    run_module("node_subnet", **POOL, subnet_requests=nodes("node1"), **etcd)
    known = {**nodes("node2")[0], "configured": {"cidrs": ["10.244.1.0/24"], "epoch": 2}}
    refused = run_module("node_subnet", **POOL, subnet_requests=[*nodes("node1"), known], **etcd)
    assert refused.get("failed")
    assert list(refused["lost"]) == ["node2"]
    assert "etcd has no claim of it" in refused["lost"]["node2"]


def test_pinned_subnet_is_kept_for_its_node_until_it_is_unpinned(etcd: dict[str, Any]) -> None:
    check_do_again("subnet_pool", **POOL, pins={"node9": "10.244.0.0/24"}, **etcd)
    done = run_module("node_subnet", **POOL, subnet_requests=nodes("node1"), **etcd)
    assert done["subnets"]["node1"]["cidrs"] == ["10.244.1.0/24"]
    stolen = run_module(
        "node_subnet", **POOL, subnet_requests=[{"name": "node2", "machine_id": "m", "subnet": "10.244.0.0/24"}], **etcd
    )
    assert "node2 is pinned to 10.244.0.0/24, which node9 has" in stolen["msg"]
    done = run_module("node_subnet", **POOL, subnet_requests=nodes("node9"), **etcd)
    assert done["subnets"]["node9"]["cidrs"] == ["10.244.0.0/24"]
    run_module("node_subnet", state="absent", subnet_requests=[{"name": "node9"}], **etcd)
    check_do_again("subnet_pool", pins={}, **etcd)
    done = run_module("node_subnet", **POOL, subnet_requests=nodes("node2"), quarantine=0, **etcd)
    assert done["subnets"]["node2"]["cidrs"] == ["10.244.2.0/24"]


def test_live_nodes_releases_only_the_claims_of_other_nodes(etcd: dict[str, Any]) -> None:
    run_module("node_subnet", **POOL, subnet_requests=nodes("node1", "node2", "node3"), **etcd)
    _predicted, done, _again = check_do_again("subnet_pool", live_nodes=["node2", "node7"], **etcd)
    assert done["released"] == ["node1", "node3"]
    info = run_module("subnet_pool_info", **etcd)
    assert [claim["node"] for claim in info["claims"]] == ["node2"]
    assert [(one["cidr"], one["state"]) for one in info["released"]] == [
        ("10.244.0.0/24", "quarantined"),
        ("10.244.2.0/24", "quarantined"),
    ]


def test_subnets_of_upstream_are_adopted_and_unowned_subnets_are_reserved(
    etcd: dict[str, Any], server: EtcdServer
) -> None:
    keys = [f"/evpn/10.244.{place}.2,10.244.{place}.254,10.244.{place}.1/16" for place in range(3)]
    with Etcd(server.access) as connection:
        connection.txn([], [Put(key, "ok") for key in keys])
        adopt = [{"name": "node1", "machine_id": "m1", "subnet": "10.244.1.0/24"}]
        _predicted, done, _again = check_do_again("subnet_pool", **POOL, adopt=adopt, **etcd)
        assert done["adopted"] == ["node1"]
        assert done["unowned"] == ["10.244.0.0/24", "10.244.2.0/24"]
        assert [pair.key for pair in connection.txn([], [Get("/evpn/", prefix=True)]).ranges[0]] == keys
    claimed = run_module("node_subnet", **POOL, subnet_requests=nodes("node2"), **etcd)
    assert claimed["subnets"]["node2"]["cidrs"] == ["10.244.3.0/24"]
    strange = run_module(
        "subnet_pool", adopt=[{"name": "node5", "machine_id": "m5", "subnet": "10.244.9.0/24"}], **etcd
    )
    assert "upstream has no key of 10.244.9.0/24" in strange["msg"]


def test_info_of_an_empty_registry_is_empty(etcd: dict[str, Any]) -> None:
    info = run_module("subnet_pool_info", **etcd)
    assert (info["changed"], info["pools"], info["claims"]) == (False, [], [])


def backup_of(etcd: dict[str, Any]) -> str:
    return str(run_module("claims_backup", directory="unused", **etcd)["content"])


def wipe(server: EtcdServer, cluster: str) -> None:
    with Etcd(server.access) as connection:
        keys = [pair.key for pair in connection.txn([], [Get(f"/evio/{cluster}/", prefix=True)]).ranges[0]]
        for place in range(0, len(keys), MAX_TXN_OPS):
            connection.txn([], [Delete(key) for key in keys[place : place + MAX_TXN_OPS]])


def contents(server: EtcdServer, cluster: str) -> dict[str, str]:
    with Etcd(server.access) as connection:
        pairs = connection.txn([], [Get(f"/evio/{cluster}/", prefix=True)]).ranges[0]
    return {pair.key: pair.value for pair in pairs}


def test_restore_into_a_wiped_registry_brings_every_key_back(etcd: dict[str, Any], server: EtcdServer) -> None:
    run_module("subnet_pool", **POOL, reserved_cidrs=["10.244.0.0/24"], pins={"node9": "10.244.9.0/24"}, **etcd)
    run_module("node_subnet", **POOL, subnet_requests=nodes("node1", "node2"), **etcd)
    run_module("node_subnet", state="absent", subnet_requests=nodes("node2"), **etcd)
    before, content = contents(server, etcd["cluster"]), backup_of(etcd)
    assert len(before) == 4
    wipe(server, etcd["cluster"])
    live = {**nodes("node1")[0], "configured": {"cidrs": ["10.244.1.0/24"], "epoch": 1 << 40}}
    silent = {"name": "node7", "machine_id": ""}
    _predicted, done, _again = check_do_again("claims_restore", content=content, subnet_requests=[live, silent], **etcd)
    assert contents(server, etcd["cluster"]) == before
    assert (done["restored"], done["silent"], done["unknown"]) == (["node1"], ["node7"], [])
    assert "it was wiped, or restored from an older snapshot" in done["outdated"]["node1"]
    assert done["diff"]["after"]["release of 10.244.2.0/24"] == "by node2"
    refused = run_module("node_subnet", **POOL, subnet_requests=[live], **etcd)
    assert list(refused["lost"]) == ["node1"]
    told = run_module("node_subnet", **POOL, subnet_requests=[live], restore=True, **etcd)
    assert (told["changed"], told["subnets"]["node1"]["cidrs"]) == (False, ["10.244.1.0/24"])
    assert 0 < told["subnets"]["node1"]["epoch"] < 1 << 40


def test_restore_of_more_claims_than_a_transaction_takes(etcd: dict[str, Any], server: EtcdServer) -> None:
    run_module("node_subnet", **POOL, subnet_requests=nodes(*(f"node{place}" for place in range(200))), **etcd)
    before, content = contents(server, etcd["cluster"]), backup_of(etcd)
    wipe(server, etcd["cluster"])
    done = run_module("claims_restore", content=content, subnet_requests=[], **etcd)
    assert len(done["restored"]) == 200
    # As if it had been cut off after some of its transactions.
    with Etcd(server.access) as connection:
        prefix = f"/evio/{etcd['cluster']}"
        connection.txn([], [Delete(f"{prefix}/nodes/node5"), Delete(f"{prefix}/subnets/010.244.005.000")])
    again = run_module("claims_restore", content=content, subnet_requests=[], **etcd)
    assert again["restored"] == ["node5"]
    assert contents(server, etcd["cluster"]) == before


def test_restore_is_refused_if_etcd_knows_something_else(etcd: dict[str, Any], server: EtcdServer) -> None:
    run_module("node_subnet", **POOL, subnet_requests=nodes("node1", "node2"), **etcd)
    content = backup_of(etcd)
    run_module("node_subnet", state="absent", subnet_requests=nodes("node2"), **etcd)
    for changes, words in (
        ([], "10.244.1.0/24 of node2 was released in etcd after the backup was taken"),
        (
            [{**nodes("node3")[0], "subnet": "10.244.1.0/24"}],
            "node3 has 10.244.1.0/24 in etcd; the backup has it for node2",
        ),
        (nodes("node2"), "etcd has 10.244.2.0/24 for node2; the backup has 10.244.1.0/24"),
    ):
        if changes:
            run_module("node_subnet", **POOL, subnet_requests=changes, quarantine=0, **etcd)
        before = contents(server, etcd["cluster"])
        refused = run_module("claims_restore", content=content, subnet_requests=[], **etcd)
        assert refused.get("failed")
        assert words in refused["msg"], refused["msg"]
        assert contents(server, etcd["cluster"]) == before
    run_module("subnet_pool", reserved_cidrs=["10.244.99.0/24"], **etcd)
    refused = run_module("claims_restore", content=content, subnet_requests=[], **etcd)
    assert "etcd has another pool (reserved networks or pins)" in refused["msg"]


@pytest.mark.parametrize(
    ("live", "words"),
    [
        ({"name": "node1", "machine_id": "other"}, "node1 is the machine other; the backup has the machine"),
        (
            {"name": "node3", "machine_id": "m3", "configured": {"cidrs": ["10.244.1.0/24"], "epoch": 1}},
            "node3 is set up with 10.244.1.0/24; the backup has it for node2",
        ),
        (
            {**nodes("node1")[0], "configured": {"cidrs": ["10.244.7.0/24"], "epoch": 1}},
            "node1 is set up with 10.244.7.0/24; the backup has 10.244.0.0/24 for it",
        ),
    ],
)
def test_restore_is_refused_if_a_live_node_contradicts(
    etcd: dict[str, Any], server: EtcdServer, live: dict[str, Any], words: str
) -> None:
    etcd = {**etcd, "cluster": "contradicted"}
    wipe(server, "contradicted")
    run_module("node_subnet", **POOL, subnet_requests=nodes("node1", "node2"), **etcd)
    content = backup_of(etcd)
    wipe(server, "contradicted")
    for check_mode in (True, False):
        refused = run_module("claims_restore", check_mode=check_mode, content=content, subnet_requests=[live], **etcd)
        assert words in refused["msg"]
    assert contents(server, "contradicted") == {}


def test_backup_of_an_empty_registry_and_restore_into_another_cluster_are_refused(etcd: dict[str, Any]) -> None:
    empty = run_module("claims_backup", directory="unused", **etcd)
    assert "so there is nothing to back up" in empty["msg"]
    run_module("node_subnet", **POOL, subnet_requests=nodes("node1"), **etcd)
    content = backup_of(etcd)
    other = run_module("claims_restore", content=content, subnet_requests=[], **{**etcd, "cluster": "other"})
    assert f"the backup is of the cluster {etcd['cluster']!r}, not of 'other'" in other["msg"]
