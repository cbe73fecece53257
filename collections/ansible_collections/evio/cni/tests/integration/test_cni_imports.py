# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a call imports is what it costs: a guard on ADD and DEL, which nothing may join unnoticed.

The interpreter alone takes half of an ADD; ``json`` would add half as much again, ``pyroute2`` ten times as much.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cni_runtime import PLUGIN, Node, Pod, library
from .ovs_daemons import OpenVSwitch, network_namespace

pytestmark = pytest.mark.root

INTERPRETER = ["/usr/bin/python3", "-ISE", "-X", "importtime"]
BUILT_IN = {"_ctypes", "_json", "_sha1", "_socket", "_struct", "_thread", "fcntl", "marshal", "select", "time"}
"""Modules of the interpreter in C: those that are imported cost nothing but _json and _ctypes, which are files."""
EVERY_CALL = {
    "evio_cni",
    "evio_cni.attachment_lock",
    "evio_cni.cni_protocol",
    "evio_cni.errors",
    "evio_cni.ipam",
    "evio_cni.journal",
    "evio_cni.netconf",
    "evio_cni.netlink",
    "evio_cni.netns",
    "evio_cni.ovsdb_rpc",
    "evio_cni.ownership",
    "evio_cni.paths",
    "evio_cni.plain_json",
    "evio_cni.rtnetlink",
    "evio_program",
    "evio_program.main",
}
OF = {
    "ADD": {
        "evio_cni.attachment",
        "evio_cni.fence",
        "evio_cni.node_rules",
        "evio_cni.offload",
        "evio_cni.openflow",
        "evio_cni.port_guard",
        "evio_cni.port_security",
        "evio_cni.ready_bridge",
        "evio_cni.result",
        "evio_cni.wiring",
    },
    "DEL": {"evio_cni.detachment"},
}


@pytest.fixture
def node(ovs: OpenVSwitch, tmp_path: Path) -> Node:
    return Node(ovs, tmp_path)


@pytest.fixture
def pod() -> Iterator[Pod]:
    with contextlib.ExitStack() as stack:
        yield Pod(stack.enter_context(network_namespace("evt-")))


def imported(report: str) -> set[str]:
    lines = [line for line in report.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}


def test_add_and_delete_import_what_they_need_and_no_more(node: Node, pod: Pod) -> None:
    with network_namespace("evt-") as other:
        node.add(Pod(other))  # Makes the bridge, with libraries that a usual ADD has no need of.
        bare = subprocess.run([*INTERPRETER, "-c", ""], capture_output=True, text=True, timeout=30, check=True)
        for command, rooms in OF.items():
            log = node.directory / "imports"
            script = 'exec "$@" 2>"$LOG"'
            node.program = ["env", f"LOG={log}", "sh", "-c", script, "sh", *INTERPRETER, str(PLUGIN)]
            node.call(command, pod)
            found = imported(log.read_text()) - imported(bare.stderr)
            assert found <= EVERY_CALL | rooms | BUILT_IN, f"{command} imports more than it did"
            assert found >= EVERY_CALL | rooms - {"evio_cni.offload"}


def test_calls_read_their_code_in_one_piece(node: Node, pod: Pod, tmp_path: Path) -> None:
    """The bundle is at work: a usual call finds all that it needs there, and none of its modules' own files."""
    with network_namespace("evt-") as other:
        node.add(Pod(other))
        copy = tmp_path / "code"
        shutil.copytree(library(), copy)
        for name in EVERY_CALL.union(*OF.values()) - {"evio_cni", "evio_program"}:
            (copy / name.replace(".", "/")).with_suffix(".py").unlink()
        shutil.rmtree(copy / "evio_cni/__pycache__")
        shutil.rmtree(copy / "evio_program/__pycache__")
        launcher = tmp_path / "evio"
        launcher.write_text(PLUGIN.read_text().replace(library(), str(copy)))
        launcher.chmod(0o755)
        node.program = [str(launcher)]
        assert node.add(pod).pings("10.244.3.1")
        node.delete(pod)
