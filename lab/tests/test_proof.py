"""The proof's verdict: each thing that can go wrong is one claim that does not hold, and all is well only if all is."""

from __future__ import annotations

from dataclasses import replace

import internet
import proof_table
import pytest
from capture import Sighting
from pods import Pod
from probes import Answer, MtuCheck, View
from proof import Proof
from tunnels import Path

A = Pod("node1-a", "node1", "10.244.0.2", "c1", 100, "evio-lab-node1-a")
B = Pod("node2-a", "node2", "10.244.1.2", "c2", 200, "evio-lab-node2-a")


def _view(pod: Pod, peer: Pod) -> View:
    gateway, outside = Answer("gateway", 0.1, False), Answer("internet", 0.5, True)
    return View(pod, (Answer(peer.name, 1.5, True),), gateway, outside, 1420)


GOOD = Proof(
    views=(_view(A, B), _view(B, A)),
    nodes={},
    seen_as={A.name: ("198.51.100.11",), B.name: ("198.51.100.22",)},
    expected_as={A.name: "198.51.100.11", B.name: "198.51.100.22"},
    paths=(Path("node1", "node2", "198.51.100.22:51820", None), Path("node2", "node1", "198.51.100.11:51820", "node3")),
    tunnel_mtus={"node1": 1420, "node2": 1420},
    mtus=(MtuCheck(A.name, B.name, 1420, passes=True, one_more_passes=False),),
    wire=Sighting(100, 0, {("198.51.100.11", "198.51.100.22"): 2 * internet.BODY_BYTES}, (), 0, (), control_read=True),
)


def test_a_network_as_it_should_be_is_proven() -> None:
    assert GOOD.failures == ()
    assert proof_table.render(GOOD).endswith("21 of 21 checks hold\n")


def test_nodes_stand_for_their_pods_on_an_internet_of_another_version() -> None:
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
    assert "  node2      2001:db8:22::10         0.5 +1M\n" in proof_table.render(proof)
    silent = replace(proof, nodes={**proof.nodes, "node1": Answer("internet", None, True)})
    assert silent.failures == ("node1 gets a ping back from internet",)


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
        (_with_view(mtu=1500), "the MTU of node1-a, 1500, is its tunnel's, 1420"),
        (
            replace(GOOD, seen_as={**GOOD.seen_as, A.name: ("10.244.0.2",)}),
            "the internet sees node1-a as 198.51.100.11 (it saw 10.244.0.2)",
        ),
        (
            replace(GOOD, seen_as={**GOOD.seen_as, A.name: ()}),
            "the internet sees node1-a as 198.51.100.11 (it saw nobody)",
        ),
        (
            replace(GOOD, mtus=(replace(GOOD.mtus[0], passes=False),)),
            "a packet of 1420 bytes passes from node1-a to node2-a",
        ),
        (
            replace(GOOD, mtus=(replace(GOOD.mtus[0], one_more_passes=True),)),
            "a packet of 1421 bytes does not pass from node1-a to node2-a",
        ),
        (_with_wire(control_read=False), "the capture can be read: what the internet served is in it"),
        (_with_wire(read=("what node1-a says",)), "nothing of the pods is readable on the public segment (found: what"),
        (_with_wire(strangers=("10.244.0.2",)), "only public addresses are on the public segment (found: 10.244.0.2)"),
        (_with_wire(fragments=3), "no packet on the public segment had to be taken apart (3 were)"),
        (_with_wire(encrypted_bytes={}), "2097152 bytes went from node to node, and 0 encrypted ones were captured"),
    ],
)
def test_each_thing_that_is_wrong_is_one_claim_that_does_not_hold(proof: Proof, claim: str) -> None:
    (failure,) = proof.failures
    assert failure.startswith(claim)
    assert f"NOT SO: {failure}" in proof_table.render(proof)
