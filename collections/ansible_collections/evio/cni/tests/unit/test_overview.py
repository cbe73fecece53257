# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cluster is put together of its nodes' answers: sites, ways, what is wrong; and the pictures show all of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.evio.cni.plugins.module_utils.overview import pool_picture, words
from ansible_collections.evio.cni.plugins.module_utils.overview.answers import NodeAnswer
from ansible_collections.evio.cni.plugins.module_utils.overview.cluster import Cluster, cluster_of
from ansible_collections.evio.cni.plugins.module_utils.overview.pool_picture import pool_pictures
from ansible_collections.evio.cni.plugins.module_utils.overview.site_map import NARROW, WIDE, site_map
from ansible_collections.evio.cni.plugins.module_utils.subnets import Pool

from .example_cluster import NOW, example_cluster, node_status, registry

DOCS = Path(__file__).resolve().parents[6] / "docs"


def cluster_with(*answers: NodeAnswer, names: tuple[str, ...] | None = None, **changes: Any) -> Cluster:
    """Return a cluster of these answers; etcd has a claim of each, with ``changes`` of what etcd has."""
    claims = registry(Pool("10.244.0.0/16", 8), names or tuple(answer.name for answer in answers))
    return cluster_of("kubernetes", answers, {**claims, **changes}, None, NOW)


def changed(**changes: Any) -> NodeAnswer:
    """Return node1's answer with changes of its status."""
    return NodeAnswer("node1", {**node_status("node1"), **changes})


def sentences(cluster: Cluster) -> list[str]:
    return [problem.what for problem in cluster.problems]


@pytest.mark.parametrize("nodes", [1, 3, 40])
@pytest.mark.parametrize("faults", [False, True])
def test_json_has_the_documented_shape(nodes: int, faults: bool) -> None:
    told = json.loads(json.dumps(example_cluster(nodes, faults=faults).to_json()))
    jsonschema.validate(told, json.loads((DOCS / "cluster-status.schema.json").read_text()))
    schema = json.loads((DOCS / "node-status.schema.json").read_text())
    for node in told["nodes"]:
        if node["status"] is not None:
            jsonschema.validate(node["status"], schema)


def test_a_cluster_in_order_has_no_problem() -> None:
    cluster = example_cluster(3)
    assert cluster.problems == ()
    assert set(cluster.states.values()) == {"in order"}
    assert cluster.summary == "3 nodes answered, 6 pods; nothing is wrong; ways: 2 direct, 1 by a relay"


def test_sites_are_the_addresses_at_which_relays_see_nodes() -> None:
    cluster = example_cluster(3)
    assert [(site.name, site.kind, site.nodes) for site in cluster.sites] == [
        ("198.51.100.1", "public", ("cloud1",)),
        ("203.0.113.1", "NAT", ("edge1",)),
        ("203.0.113.2", "NAT", ("edge2",)),
    ]


def test_site_of_the_inventory_comes_first_and_an_unseen_node_is_at_an_unknown_site() -> None:
    answers = [replace(answer, site="shop") for answer in example_cluster(3).answers[1:]]
    cluster = cluster_with(*answers, NodeAnswer("node9", None, "unreachable"))
    assert [(site.name, site.kind) for site in cluster.sites] == [("shop", "unknown"), ("not known", "unknown")]


def test_the_worse_of_two_views_of_a_way_counts() -> None:
    first, second = example_cluster(2).answers
    assert first.status is not None
    [peer] = first.status["overlay"]["peers"]
    peer.update(kind="none", path=None)
    cluster = cluster_with(first, second)
    assert [(way.kind, way.ends) for way in cluster.ways] == [("none", ("cloud1", "edge1"))]


def test_problem_of_many_nodes_is_told_once() -> None:
    cluster = example_cluster(40, faults=True)
    [expiring] = [problem for problem in cluster.problems if "expires" in problem.what]
    assert len(expiring.nodes) == 6
    assert [problem.severity for problem in cluster.problems] == ["error", "error", "warning"]


@pytest.mark.parametrize(
    ("answer", "etcd", "what", "remedy"),
    [
        (NodeAnswer("node1", None, "timed out"), {}, "1 node did not answer: timed out", "ping node1"),
        (NodeAnswer("node1", {"schema": 2}), {}, "which this version does not know", "ping node1"),
        (changed(), {"claims": []}, "etcd has no claim of the node", "evio_node_subnet_restore=true"),
        (
            changed(claim={"subnets": ["10.244.9.0/24"], "epoch": 7, "fence": None}),
            {},
            "is configured with 10.244.9.0/24, but etcd has 10.244.0.0/24",
            "evio.cni.bootstrap --limit node1",
        ),
        (
            changed(claim={"subnets": ["10.244.0.0/24"], "epoch": 5, "fence": None}),
            {},
            "epoch 5 of its claim, but etcd has 7",
            "evio.cni.bootstrap",
        ),
    ],
)
def test_what_is_wrong_comes_with_its_remedy(answer: NodeAnswer, etcd: dict[str, Any], what: str, remedy: str) -> None:
    [problem] = cluster_with(answer, **etcd).problems
    assert what in problem.what
    assert remedy in problem.remedy
    assert problem.nodes == ("node1",)


def test_claims_of_strangers_and_a_full_pool_are_told() -> None:
    full = {"pod_cidr": "10.244.0.0/16", "node_bits": 8, "size": 256}
    counts = {**full, "claimed": 250, "quarantined": 6, "reserved": 0, "free": 0}
    cluster = cluster_with(changed(), names=("node1", "old"), pools=[counts])
    assert sentences(cluster) == [
        "no node subnet of 10.244.0.0/16 left for new nodes; 6 are in quarantine",
        "1 claim in etcd of nodes that the inventory does not have: old",
    ]


def test_etcd_that_does_not_answer_is_told() -> None:
    cluster = cluster_of("kubernetes", [changed()], None, "connection refused", NOW)
    assert sentences(cluster) == ["etcd did not tell the claims: connection refused"]
    assert pool_pictures(cluster) == []


def test_differences_between_nodes_are_told() -> None:
    answers = [NodeAnswer(name, node_status(name, subnet=f"10.244.{n}.0/24")) for n, name in enumerate("abc")]
    assert answers[2].status is not None
    answers[2].status["versions"]["evio"] = "evio-other"
    answers[2].status["time"] = NOW + 3600
    problems = cluster_with(*answers).problems
    assert ["version of the programs" in problems[0].what, "clock" in problems[1].what] == [True, True]
    assert {problem.nodes for problem in problems} == {("c",)}


@pytest.mark.parametrize("nodes", [1, 3, 12, 300])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_map_shows_each_node_once_inside_its_box_and_nothing_overlaps(nodes: int, width: int) -> None:
    picture = site_map(example_cluster(nodes, node_bits=16), width)
    assert len({chip.node for chip in picture.chips}) == len(picture.chips) == nodes
    boxes = {node: box for box in picture.boxes for node in box.site.nodes}
    for chip in picture.chips:
        box = boxes[chip.node]
        assert box.x <= chip.x
        assert chip.x + chip.width <= box.x + box.width
        assert box.y < chip.y
        assert chip.y + chip.height <= box.y + box.height
    for number, box in enumerate(picture.boxes):
        assert box.x >= 0
        assert box.x + box.width <= width
        assert box.y + box.height <= picture.height
        for other in picture.boxes[number + 1 :]:
            assert (
                box.x + box.width <= other.x
                or other.x + other.width <= box.x
                or box.y + box.height <= other.y
                or other.y + other.height <= box.y
            )


def test_small_pool_has_a_cell_for_each_subnet() -> None:
    [picture] = pool_pictures(example_cluster(3))
    states = [cell.state for cell in picture.cells]
    assert len(states) == 256
    assert states[:9] == ["claimed"] * 3 + ["quarantined"] * 2 + ["free"] * 2 + ["pinned", "free"]
    assert states[-2:] == ["reserved"] * 2
    assert [(cell.owner, cell.reserved, cell.fill) for cell in picture.cells[:2]] == [("cloud1", 2, 1), ("edge1", 2, 1)]


def test_large_pool_has_squares_and_lists_what_has_an_owner() -> None:
    [picture] = pool_pictures(example_cluster(300, node_bits=16))
    assert picture.squares is not None
    assert (picture.squares.columns, picture.squares.rows, picture.squares.subnets_each) == (256, 256, 1)
    assert picture.squares.runs["claimed"] == "M0 0h256v1h-256zM0 1h44v1h-44z"
    assert len(picture.cells) == 303


def test_pool_of_more_subnets_than_squares_shows_each_claim() -> None:
    cluster = example_cluster(3)
    assert cluster.registry is not None
    counts = {"pod_cidr": "fd00::/40", "node_bits": 24, "size": 1 << 24}
    claims = [{"node": "a", "cidrs": ["fd00:0:ff:ffff::/64"], "epoch": 1, "age": 1.0}]
    etcd = {**cluster.registry, "pools": [counts], "claims": claims, "released": [], "pins": {}, "reserved_cidrs": []}
    [picture] = pool_pictures(replace(cluster, registry=etcd))
    assert picture.squares is not None
    assert picture.squares.subnets_each == 256
    assert picture.squares.runs == {"claimed": "M255 255h1v1h-1z"}


def test_states_of_squares_have_an_order() -> None:
    assert pool_picture.STATES[0] == "claimed"
    assert pool_picture.STATES[-1] == "free"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (3, "3 s"), (119, "119 s"), (150, "2 min"), (7200, "2 h"), (86400 * 40, "40 d")]
)
def test_time_spans_are_told_in_their_largest_unit(value: float | None, text: str) -> None:
    assert words.duration(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (999, "999 B"), (1400, "1.4 kB"), (3 * 10**15, "3000 TB")])
def test_bytes_are_told_in_their_unit(value: int | None, text: str) -> None:
    assert words.amount(value) == text


def test_names_of_sites_stand_where_no_way_to_a_relay_crosses_them() -> None:
    drawn = site_map(example_cluster(12))
    for box in drawn.boxes:
        chips = [chip for chip in drawn.chips if chip.node in box.site.nodes]
        if box.site.kind == "public":
            assert box.y < box.label_y < min(chip.y for chip in chips)
        else:
            assert max(chip.y + chip.height for chip in chips) < box.label_y < box.y + box.height
