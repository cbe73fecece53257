# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Waiting for nodes: each node that is not as expected gets a sentence of its own. kubectl is a double."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.kubernetes.nodes import (
    Kubectl,
    KubernetesError,
    await_nodes,
    parse_nodes,
)

ADDRESSES = {"node1": "10.10.0.1", "node2": "10.10.0.2"}


def node(name: str, address: str, *, ready: str = "True", message: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {
            "conditions": [
                {"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": ready, "message": message},
            ],
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}],
        },
    }


def kubectl(tmp_path: Path, *answers: list[dict[str, Any]]) -> Kubectl:
    """A kubectl that gives one answer after the other, and then the last one for ever."""
    for number, nodes in enumerate(answers):
        (tmp_path / f"answer{number}").write_text(json.dumps({"items": nodes}))
    script = tmp_path / "kubectl"
    script.write_text(
        f"#!/bin/sh\ncd {tmp_path}\nn=$(cat count 2>/dev/null || echo 0)\n"
        f'cat answer$n\n[ "$n" = {len(answers) - 1} ] || echo $((n + 1)) > count\n'
    )
    script.chmod(0o755)
    return Kubectl((str(script),), "/nonexistent")


def wait(asked: Kubectl, timeout: float = 0, check_addresses: bool = True) -> list[str]:
    return await_nodes(asked, ADDRESSES, timeout=timeout, check_addresses=check_addresses)[1]


def test_nodes_that_become_ready_in_time_are_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    late = [node("node1", "10.10.0.1"), node("node2", "10.10.0.2", ready="False", message="cni not initialized")]
    ready = [node("node1", "10.10.0.1"), node("node2", "10.10.0.2")]
    asked = kubectl(tmp_path, [], late, ready)
    found, elsewhere = await_nodes(asked, ADDRESSES, timeout=30, check_addresses=True)
    assert ([item.name for item in found], elsewhere) == (["node1", "node2"], [])


def test_each_unready_node_is_named_with_kubelets_reason(tmp_path: Path) -> None:
    asked = kubectl(tmp_path, [node("node1", "10.10.0.1", ready="Unknown", message="kubelet stopped posting status")])
    with pytest.raises(KubernetesError) as error:
        wait(asked)
    assert "node1 is not Ready: kubelet stopped posting status" in str(error.value)
    assert "node2 is not a node of the cluster, which has node1" in str(error.value)


def test_node_at_another_address_is_refused_or_told(tmp_path: Path) -> None:
    nodes = [node("node1", "10.10.0.1"), node("node2", "192.168.1.10")]
    sentence = "node2 has the InternalIP 192.168.1.10, not its host overlay address 10.10.0.2"
    with pytest.raises(KubernetesError, match=sentence):
        wait(kubectl(tmp_path, nodes))
    (told,) = wait(kubectl(tmp_path, nodes), check_addresses=False)
    assert told.startswith(sentence)


def test_api_server_that_does_not_answer_is_told_in_kubectls_words(tmp_path: Path) -> None:
    script = tmp_path / "kubectl"
    script.write_text("#!/bin/sh\necho The connection to the server 10.10.0.1:6443 was refused >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(KubernetesError, match=r"connection to the server 10\.10\.0\.1:6443 was refused"):
        wait(Kubectl((str(script),), "/nonexistent"))


def test_missing_kubectl_is_told() -> None:
    with pytest.raises(KubernetesError, match="/nonexistent/k3s is not installed on this host"):
        wait(Kubectl(("/nonexistent/k3s", "kubectl"), "/nonexistent"))


@pytest.mark.parametrize("text", ["", "[]", '{"items": [{}]}', '{"items": null}'])
def test_answer_that_is_no_list_of_nodes_is_refused(text: str) -> None:
    with pytest.raises(KubernetesError, match="did not print a list of nodes"):
        parse_nodes(text)
