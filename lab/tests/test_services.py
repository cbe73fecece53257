"""The rules of Services: nft takes them, a client reaches the pod by them, and nothing of them is left."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import nodes
import pytest
import services
from pods import Pod
from state import Lab
from topology import plan

pytestmark = pytest.mark.root

PODS = [Pod(f"node1-{letter}", "node1", f"127.0.0.{number}", "c", 1, "m") for number, letter in ((2, "a"), (3, "b"))]


@pytest.fixture
def namespace(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A network namespace that stands for a node; give the command that runs another one in it."""
    lab.write(plan(1), is_complete=True)
    with subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "ip link set lo up && echo ready && cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        command = ["nsenter", f"--target={process.pid}", "-n"]
        monkeypatch.setattr(nodes, "command", lambda _lab, _node, argv: [*command, *argv])
        yield command
        process.stdin.close()


def test_services_are_translated_for_the_block_alone(lab: Lab, namespace: list[str]) -> None:
    def ruleset() -> str:
        return subprocess.run([*namespace, "nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout

    with services.translated(lab, PODS) as addresses:
        assert addresses == {"node1-a": "10.111.255.254", "node1-b": "10.111.255.253"}
        assert "ip daddr 10.111.255.253 tcp dport 80 dnat to 127.0.0.3:8080" in ruleset()
    assert ruleset() == ""


def test_rules_of_a_proof_that_was_killed_are_replaced(lab: Lab, namespace: list[str]) -> None:
    with services.translated(lab, PODS[:1]), services.translated(lab, PODS[1:]) as addresses:
        shown = subprocess.run([*namespace, "nft", "list", "ruleset"], capture_output=True, text=True, check=True)
        assert shown.stdout.count(f"ip daddr {addresses['node1-b']} tcp dport 80") == 2
        assert "127.0.0.2" not in shown.stdout
