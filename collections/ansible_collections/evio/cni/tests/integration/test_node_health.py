# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module node_health_info on a real node: it waits for what worked before, and names what does not any more."""

from __future__ import annotations

from typing import Any

import pytest

from .ansible_module import run_module
from .cni_runtime import PLUGIN, NewPod, Node

pytestmark = pytest.mark.root


def health(node: Node, **options: Any) -> dict[str, Any]:
    return run_module(
        "node_health_info",
        netns=node.switch.netns,
        conf_dir=str(node.directory / "net.d"),
        bin_dir=str(PLUGIN.parent),
        state_dir=node.conf["stateDir"],
        has_pods=True,
        **options,
    )


def test_pod_that_is_cut_off_is_named_and_what_was_wrong_before_is_not(node: Node, new_pod: NewPod) -> None:
    node.write_conflist()
    node.add(new_pod())
    first = health(node)["health"]
    assert (first["problems"], first["silent_pods"], len(first["pods"])) == ([], [], 1)
    assert health(node, wait=True, before=first)["health"] == first
    [port] = node.ports()
    node.switch.vsctl("del-port", port)
    failed = health(node, wait=True, before=first, timeout=1)
    assert failed["failed"] is True
    assert "is not plugged into the bridge" in failed["msg"]
    assert f"pods do not answer that did before: {first['pods'][0]}" in failed["msg"]
    second = health(node)["health"]
    assert second["silent_pods"] == first["pods"]
    assert health(node, wait=True, before=second)["health"] == second


def test_node_whose_programs_do_not_answer_status_does_not_work(node: Node) -> None:
    node.write_conflist()
    first = health(node)["health"]
    node.switch.kill_vswitchd()
    failed = health(node, wait=True, before=first, timeout=1)
    assert failed["failed"] is True
    assert f"{PLUGIN} STATUS failed: " in failed["msg"]
    assert health(node, check_mode=True, wait=True, before=first)["changed"] is False
