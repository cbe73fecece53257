"""The proof's verdict: each fault makes one check fail, and the page names it and the command to run next."""

from __future__ import annotations

from dataclasses import replace

import internet
import proof_table
import pytest
from capture import CaptureFindings
from pods import Pod
from probes import Answer, MtuCheck, ServiceAnswer, View
from proof import Proof
from tunnels import Path

A = Pod("node1-a", "node1", "10.244.0.2", "c1", 100, "evio-lab-node1-a")
B = Pod("node2-a", "node2", "10.244.1.2", "c2", 200, "evio-lab-node2-a")


def _view(pod: Pod, peer: Pod) -> View:
    gateway, outside = Answer("gateway", 0.1, False), Answer("internet", 0.5, True)
    return View(pod, (Answer(peer.name, 1.5, True),), gateway, outside, 1420)


def _service(client: str, node: str, backend: Pod, *, is_body_right: bool = True) -> ServiceAnswer:
    return ServiceAnswer(client, node, backend.name, "10.111.255.254", is_body_right)


GOOD = Proof(
    views=(_view(A, B), _view(B, A)),
    nodes={},
    services=(
        _service(A.name, "node1", A),
        _service(A.name, "node1", B),
        _service("node1", "node1", A),
        _service("node1", "node1", B),
    ),
    seen_as={A.name: ("198.51.100.11",), B.name: ("198.51.100.22",)},
    expected_as={A.name: "198.51.100.11", B.name: "198.51.100.22"},
    paths=(Path("node1", "node2", "198.51.100.22:51820", None), Path("node2", "node1", "198.51.100.11:51820", "node3")),
    tunnel_mtus={"node1": 1420, "node2": 1420},
    mtus=(MtuCheck(A.name, B.name, 1420, passes=True, one_more_passes=False),),
    wire=CaptureFindings(
        100, 0, {("198.51.100.11", "198.51.100.22"): 2 * internet.BODY_BYTES}, (), 0, (), is_control_found=True
    ),
)


def test_network_that_works_passes_every_check() -> None:
    assert GOOD.failures == ()
    assert proof_table.render(GOOD).endswith("25 of 25 checks hold\n")


def test_nodes_are_asked_where_the_internet_has_another_ip_version() -> None:
    views = tuple(replace(view, internet=None) for view in GOOD.views)
    seen = {"node1": ("2001:db8::11",), "node2": ("2001:db8:22::10",)}
    proof = replace(
        GOOD,
        views=views,
        nodes={name: Answer("internet", 0.5, True) for name in seen},
        seen_as=seen,
        expected_as={name: address for name, (address,) in seen.items()},
    )
    assert proof.failures == ()
    assert "  node2     2001:db8:22::10         0.5 ok\n" in proof_table.render(proof)
    silent = replace(proof, nodes={**proof.nodes, "node1": Answer("internet", None, True)})
    assert [check.claim for check in silent.failures] == ["node1 gets a ping back from internet"]


def _with_view(**changed: object) -> Proof:
    return replace(GOOD, views=(replace(GOOD.views[0], **changed), GOOD.views[1]))  # type: ignore[arg-type]


def _with_wire(**changed: object) -> Proof:
    return replace(GOOD, wire=replace(GOOD.wire, **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("proof", "claim"),
    [
        (_with_view(peers=(Answer(B.name, None, True),)), "node1-a gets a ping back from node2-a"),
        (_with_view(peers=(Answer(B.name, 1.0, False),)), "node1-a gets 1 MiB unharmed from node2-a"),
        (_with_view(gateway=Answer("gateway", None, False)), "node1-a gets a ping back from its gateway"),
        (_with_view(internet=Answer("internet", 1.0, False)), "node1-a gets 1 MiB unharmed from internet"),
        (
            replace(GOOD, services=(*GOOD.services[1:], _service(A.name, "node1", A, is_body_right=False))),
            "node1-a gets 1 MiB unharmed from the Service of node1-a, 10.111.255.254",
        ),
        (
            replace(GOOD, services=(*GOOD.services[:3], _service("node1", "node1", B, is_body_right=False))),
            "node1 gets 1 MiB unharmed from the Service of node2-a, 10.111.255.254",
        ),
        (_with_view(mtu=1500), "the MTU of node1-a, 1500, is its tunnel's, 1420"),
        (
            replace(GOOD, seen_as={**GOOD.seen_as, A.name: ("10.244.0.2",)}),
            "the internet sees node1-a as 198.51.100.11 (it saw 10.244.0.2)",
        ),
        (
            replace(GOOD, seen_as={**GOOD.seen_as, A.name: ()}),
            "the internet sees node1-a as 198.51.100.11 (it saw no request)",
        ),
        (
            replace(GOOD, mtus=(replace(GOOD.mtus[0], passes=False),)),
            "a packet of 1420 bytes passes from node1-a to node2-a",
        ),
        (
            replace(GOOD, mtus=(replace(GOOD.mtus[0], one_more_passes=True),)),
            "a packet of 1421 bytes does not pass from node1-a to node2-a",
        ),
        (_with_wire(is_control_found=False), "the capture can be read: what the internet served is in it"),
        (
            _with_wire(readable=("what node1-a serves",)),
            "nothing of the pods is readable on the public segment (found: what",
        ),
        (
            _with_wire(foreign_addresses=("10.244.0.2",)),
            "only public addresses are on the public segment (found: 10.244.0.2)",
        ),
        (_with_wire(fragments=3), "no packet on the public segment is a fragment (found: 3)"),
        (
            _with_wire(encrypted_bytes={}),
            "2097152 bytes that went from node to node were encrypted (found: 0 encrypted bytes)",
        ),
    ],
)
def test_each_fault_fails_one_check_and_the_page_names_it_and_the_next_step(proof: Proof, claim: str) -> None:
    (failure,) = proof.failures
    assert failure.claim.startswith(claim)
    assert f"  FAILED: {failure.claim}\n    look at: {failure.next_step}\n" in proof_table.render(proof)


def _three_nodes_with_two_pods_each(answer: Answer) -> Proof:
    """Return the proof of the demo's lab in which every pod got this answer from every other."""
    pods = [
        Pod(f"node{node}-{letter}", f"node{node}", f"10.244.{node}.10{number}", "c", 1, "m")
        for node in (1, 2, 3)
        for number, letter in enumerate("ab")
    ]
    views = tuple(
        replace(
            GOOD.views[0], pod=pod, peers=tuple(replace(answer, target=peer.name) for peer in pods if peer is not pod)
        )
        for pod in pods
    )
    endpoint = "[2001:db8:222::100]:51820"
    return replace(
        GOOD,
        views=views,
        services=tuple(
            _service(client, node, pod)
            for client, node in (*((p.name, p.node) for p in pods), ("node1", "node1"))
            for pod in pods
        ),
        seen_as={pod.name: ("198.51.100.111",) for pod in pods},
        expected_as={pod.name: "198.51.100.111" for pod in pods},
        paths=tuple(Path(f"node{a}", f"node{b}", endpoint, None) for a in (1, 2, 3) for b in (1, 2, 3) if a != b),
        tunnel_mtus={f"node{node}": 1420 for node in (1, 2, 3)},
        mtus=(MtuCheck("node1-a", "node2-a", 1420, passes=True, one_more_passes=False),),
        wire=replace(GOOD.wire, encrypted_bytes={("198.51.100.111", "198.51.100.222"): 24 * internet.BODY_BYTES}),
    )


@pytest.mark.parametrize(
    "answer",
    [
        Answer("", 999.9, True),
        Answer("", 12345.6, True),
        Answer("", 999.9, False),
        Answer("", None, True),
        Answer("", None, False),
    ],
)
def test_page_of_three_nodes_with_two_pods_each_fits_100_columns(answer: Answer) -> None:
    lines = proof_table.render(_three_nodes_with_two_pods_each(answer)).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("from ") for line in lines) == 2


def test_many_failures_are_grouped_by_the_next_step_and_counted() -> None:
    page = proof_table.render(_three_nodes_with_two_pods_each(Answer("", None, False)))
    # Of each node: its tunnels with eight claims for each pod, and each pod's neighbour on the same node.
    assert page.count("look at: lab/lab ssh node2 wg show evio0\n") == 1
    assert page.count("  FAILED: 12 more like these\n") == 3
    assert "look at: lab/lab ssh node2 /opt/cni/bin/evio explain 10.244.2.100\n" in page
    assert "60 FAILED" in page
