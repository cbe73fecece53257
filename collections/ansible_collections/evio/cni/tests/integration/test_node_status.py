# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node tells its state: as JSON in the documented shape, as text that fits a terminal, and by the module."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from .ansible_module import run_module
from .cni_runtime import PLUGIN, NewPod, Node
from .ovs_daemons import in_namespace

pytestmark = pytest.mark.root

SCHEMA = json.loads((Path(__file__).resolve().parents[6] / "docs/node-status.schema.json").read_text())


def conf_dir(node: Node) -> str:
    """Write the node's network as a conflist, and return its directory."""
    directory = node.directory / "net.d"
    directory.mkdir(exist_ok=True)
    plugin = {key: value for key, value in node.conf.items() if key not in ("cniVersion", "name")}
    conflist = {"cniVersion": "1.0.0", "name": "evio", "plugins": [{**plugin, "type": "evio"}]}
    (directory / "10-evio.conflist").write_text(json.dumps(conflist))
    return str(directory)


def status(node: Node) -> subprocess.CompletedProcess[str]:
    command = (str(PLUGIN), "status", "--json", "--cri-socket=", "--conf-dir", conf_dir(node))
    return in_namespace(node.switch.netns, *command, check=False)


def on_terminal(netns: str, *arguments: str, **environment: str) -> str:
    """Return what the program prints on a terminal of 80 columns."""
    leader, follower = pty.openpty()
    command = ["nsenter", f"--net=/run/netns/{netns}", str(PLUGIN), *arguments]
    variables = {**os.environ, "TERM": "xterm", **environment}
    with subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=subprocess.DEVNULL, env=variables
    ) as process:
        os.close(follower)
        text = b""
        try:
            while piece := os.read(leader, 65536):
                text += piece
        except OSError:
            # The program has closed the terminal.
            pass
        process.wait(timeout=30)
    os.close(leader)
    return text.decode()


def test_program_and_module_tell_the_documented_shape(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    done = status(node)
    told: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(told, SCHEMA)
    [network] = told["networks"]
    assert network["pods"][0]["addresses"] == [f"{pod.address}/24"]
    assert [(room["subnet"], room["reserved"]) for room in network["room"]] == [("10.244.3.0/24", 1)]
    assert network["room"][0]["size"] == 253
    assert not [problem for problem in told["problems"] if problem["severity"] == "error"], told["problems"]
    assert done.returncode == 0
    module = run_module(
        "node_status_info", netns=node.switch.netns, conf_dir=conf_dir(node), cri_socket="", has_pods=True
    )["status"]
    jsonschema.validate(module, SCHEMA)
    assert module["networks"] == told["networks"]


def test_what_is_wrong_comes_with_its_remedy(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    node.switch.kill_vswitchd()
    done = status(node)
    told = json.loads(done.stdout)
    jsonschema.validate(told, SCHEMA)
    errors = {problem["what"]: problem["remedy"] for problem in told["problems"] if problem["severity"] == "error"}
    assert any("1 pod is cut off" in what for what in errors), errors
    assert set(errors.values()) == {"systemctl restart openvswitch-switch"}
    assert done.returncode == 1


def test_module_describes_a_node_that_is_not_set_up(netns: str, tmp_path: Path) -> None:
    told = run_module("node_status_info", netns=netns, conf_dir=str(tmp_path), bin_dir=str(tmp_path), has_pods=True)
    jsonschema.validate(told["status"], SCHEMA)
    assert told["status"]["versions"]["evio"] is None
    [problem] = [problem for problem in told["status"]["problems"] if "no network" in problem["what"]]
    assert "evio.cni.bootstrap" in problem["remedy"]
    assert problem["run_on"] == "control machine"
    calm = run_module("node_status_info", netns=netns, conf_dir=str(tmp_path), has_pods=False)["status"]
    assert calm["networks_fault"] is None


def test_text_fits_80_columns_and_has_colours_on_terminals_only(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    node.switch.kill_vswitchd()
    arguments = ("status", "--cri-socket=", "--conf-dir", conf_dir(node))
    piped = in_namespace(node.switch.netns, str(PLUGIN), *arguments, check=False).stdout
    shown = on_terminal(node.switch.netns, *arguments)
    plain = on_terminal(node.switch.netns, *arguments, NO_COLOR="1")
    assert "\x1b[31m" in shown
    assert "\x1b" not in piped + plain
    assert [line for line in plain.splitlines() if len(line) > 80] == []
    assert " ".join(plain.split()) == " ".join(piped.split())
    assert piped.splitlines()[0].startswith("ERROR   ")
