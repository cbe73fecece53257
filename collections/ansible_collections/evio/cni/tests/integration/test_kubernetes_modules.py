# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The modules of the role kubelet, and the module that removes the plugin's state from a node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .ansible_module import check_do_again, run_module
from .cni_runtime import NewPod, Node

pytestmark = pytest.mark.root


def test_node_ip_is_set_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "kubelet"
    check_do_again("kubelet_node_ip", path=str(path), address="10.10.0.2")
    assert path.read_text() == 'KUBELET_EXTRA_ARGS="--node-ip=10.10.0.2"\n'
    check_do_again("kubelet_node_ip", path=str(path), address="10.10.0.3")
    check_do_again("kubelet_node_ip", path=str(path), state="absent")
    assert path.read_text() == "KUBELET_EXTRA_ARGS=\n"


def test_network_in_front_of_this_one_is_refused_and_one_behind_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "10-flannel.conflist").write_text("{}")
    behind = run_module("cni_directories_info", conf_dir=str(tmp_path))
    assert behind["other_files"] == ["10-flannel.conflist"]
    assert "10-flannel.conflist" in str(behind["warnings"])
    (tmp_path / "05-cilium.conflist").write_text("{}")
    in_front = run_module("cni_directories_info", conf_dir=str(tmp_path))
    assert "05-cilium.conflist sorts before 10-evio.conflist" in in_front["msg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["05-cilium.conflist", "10-flannel.conflist"]


def test_runtime_that_must_answer_is_told_apart(tmp_path: Path) -> None:
    socket = str(tmp_path / "cri.sock")
    asked = {"conf_dir": str(tmp_path), "cri_socket": socket}
    assert run_module("cni_directories_info", **asked)["conf_dir"] is None
    assert socket in run_module("cni_directories_info", **asked, required=True)["msg"]


def test_host_tells_what_is_in_the_way_of_pods_and_which_files_it_has(tmp_path: Path) -> None:
    asked = {"conf_dir": str(tmp_path), "files": [str(tmp_path / "05-cilium.conflist"), str(tmp_path / "none")]}
    (tmp_path / "10-flannel.conflist").write_text("{}")
    behind = run_module("host_info", **asked, pods=True)
    assert (behind["cni_fault"], behind["other_cni_files"], behind["present_files"]) == (
        None,
        ["10-flannel.conflist"],
        [],
    )
    assert "10-flannel.conflist" in str(behind["warnings"])
    (tmp_path / "05-cilium.conflist").write_text("{}")
    in_front = run_module("host_info", **asked, pods=True)
    assert "05-cilium.conflist sorts before 10-evio.conflist" in in_front["cni_fault"]
    assert in_front["present_files"] == [str(tmp_path / "05-cilium.conflist")]
    assert run_module("host_info", **asked)["cni_fault"] is None


def test_host_tells_the_subnets_that_it_is_set_up_with_or_why_it_cannot(tmp_path: Path) -> None:
    asked = {"conf_dir": str(tmp_path)}
    assert run_module("host_info", **asked)["configured"] is None
    plugin = {"type": "evio", "epoch": 4, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.7.0/24"}]]}}
    conflist = tmp_path / "10-evio.conflist"
    conflist.write_text(json.dumps({"cniVersion": "1.0.0", "name": "evio", "plugins": [plugin]}))
    told = run_module("host_info", **asked)
    assert (told["configured"], told["claim_fault"]) == ({"cidrs": ["10.244.7.0/24"], "epoch": 4}, None)
    conflist.write_text("{")
    damaged = run_module("host_info", **asked)
    assert damaged["configured"] is None
    assert "10-evio.conflist does not tell which subnets this node has" in damaged["claim_fault"]


def removal(directory: Path, netns: str) -> dict[str, Any]:
    return {
        "netns": netns,
        "bridge": "br-evio",
        "state_dir": str(directory / "state"),
        "run_dir": str(directory / "run"),
        "reservations_dir": str(directory / "networks"),
    }


def test_state_of_the_plugin_is_removed_and_that_of_others_stays(tmp_path: Path, netns: str) -> None:
    def nft(*arguments: str) -> str:
        command = ["ip", "netns", "exec", netns, "nft", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout

    for path in ("state/evio/0123:eth0", "run/overlay.json", "networks/evio/10.244.1.2", "networks/other/10.9.0.2"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    nft("add", "table", "inet", "evio_cni")
    nft("add", "chain", "inet", "evio_cni", "some")
    nft("add", "table", "inet", "site")
    check_do_again("cni_state", **removal(tmp_path, netns))
    assert [path.name for path in tmp_path.iterdir()] == ["networks"]
    assert [path.name for path in (tmp_path / "networks").iterdir()] == ["other"]
    assert nft("list", "tables") == "table inet site\n"


def test_state_directory_that_others_use_too_keeps_what_is_theirs(tmp_path: Path, netns: str) -> None:
    ours = ("evio/0123:eth0", "second/0456:net1", ".lock", ".fence", f"..fence.{'0a' * 8}.tmp", ".metrics/events")
    theirs = (".fence.old.tmp", "evio/notes", "dpkg/status", "info/libc6:amd64.list", "info/list", "openssl.cnf")
    for path in (*ours, *theirs):
        (tmp_path / "state" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "state" / path).touch()
    (tmp_path / "state/empty").mkdir()
    check_do_again("cni_state", **removal(tmp_path, netns))
    left = {str(path.relative_to(tmp_path / "state")) for path in (tmp_path / "state").rglob("*")}
    assert left == {*theirs, "evio", "dpkg", "info", "empty"}


def test_nothing_is_removed_while_a_pod_runs(node: Node, new_pod: NewPod, netns: str) -> None:
    pod = node.add(new_pod())
    kept = run_module("cni_state", **removal(node.directory, netns))
    assert (kept["changed"], kept["running"]) == (False, [pod.container_id])
    assert "1 pods of the network still run" in str(kept["warnings"])
    node.delete(pod)
    assert run_module("cni_state", **removal(node.directory, netns))["changed"]
    assert not (node.directory / "state").exists()
