# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ADD and DEL import no module but those that are listed here.

Half of the time of an ADD is the interpreter's start; importing ``json`` would add a quarter of the whole, importing
``pyroute2`` ten times the whole.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cni_runtime import PLUGIN, Node, Pod, library
from .ovs_daemons import network_namespace

pytestmark = pytest.mark.root

INTERPRETER = "/usr/bin/python3"
BUILT_IN = {"_ctypes", "_json", "_sha1", "_socket", "_struct", "_thread", "fcntl", "gc", "marshal", "select", "time"}
"""Modules in C. All but _json and _ctypes, which are files, are part of the interpreter."""
PACKAGES = {f"evio_cni.{name}" for name in ("cni", "ipam", "kernel", "ovs", "plugin", "state")}
"""Empty. The stages make the packages of their modules."""
EVERY_CALL = {
    "evio_cni",
    "evio_cni.cidr",
    "evio_cni.cni.attachment",
    "evio_cni.cni.netconf",
    "evio_cni.cni.spec",
    "evio_cni.deadline",
    "evio_cni.defaults",
    "evio_cni.errors",
    "evio_cni.fast_json",
    "evio_cni.ipam.delegate",
    "evio_cni.kernel.links",
    "evio_cni.kernel.netlink",
    "evio_cni.kernel.numbers",
    "evio_cni.kernel.unix_socket",
    "evio_cni.mtu",
    "evio_cni.names",
    "evio_cni.ovs.external_ids",
    "evio_cni.ovs.jsonrpc",
    "evio_cni.ovs.ports",
    "evio_cni.paths",
    "evio_cni.state.directory",
    "evio_cni.state.event_log",
    "evio_cni.state.journal",
    "evio_cni.state.lock",
    "evio_program",
    "evio_program.main",
    *PACKAGES,
}
OF = {
    "ADD": {
        "evio_cni.cni.interfaces",
        "evio_cni.cni.result",
        "evio_cni.cni.unsupported",
        "evio_cni.firewall",
        "evio_cni.firewall.network_rules",
        "evio_cni.kernel.boot",
        "evio_cni.kernel.ethtool",
        "evio_cni.kernel.netns",
        "evio_cni.kernel.pod_netlink",
        "evio_cni.kernel.rtnetlink",
        "evio_cni.ovs.cookies",
        "evio_cni.ovs.pod_steering",
        "evio_cni.ovs.port_flows",
        "evio_cni.ovs.openflow",
        "evio_cni.ovs.port_security",
        "evio_cni.plugin.add",
        "evio_cni.plugin.add_host_side",
        "evio_cni.plugin.add_pod_side",
        "evio_cni.plugin.setup_bridge",
        "evio_cni.state.fence",
    },
    "DEL": {"evio_cni.plugin.delete"},
}
_RECORD = """\
import posix, sys
def leave(status, leave=posix._exit):
    with open({log!r}, "w") as log:
        log.write("\\n".join(sys.modules))
    leave(status)
posix._exit = leave
"""
"""Lines to run before the launcher's own: they write the names of all imported modules to a file at the end."""


@pytest.fixture
def pod() -> Iterator[Pod]:
    with contextlib.ExitStack() as stack:
        yield Pod(stack.enter_context(network_namespace("evt-")))


def test_add_and_del_import_the_listed_modules_and_no_others(node: Node, pod: Pod, tmp_path: Path) -> None:
    log = tmp_path / "imported"
    with network_namespace("evt-") as other:
        node.add(Pod(other))  # The first ADD makes the bridge, with libraries that the others do not need.
        listing = [INTERPRETER, "-ISE", "-c", "import sys; print(*sys.modules)"]
        bare = subprocess.run(listing, capture_output=True, text=True, timeout=30, check=True)
        node.program = [str(launcher(tmp_path, library(), _RECORD.format(log=str(log))))]
        for command, modules in OF.items():
            node.call(command, pod)
            found = set(log.read_text().splitlines()) - set(bare.stdout.split())
            assert found <= EVERY_CALL | modules | BUILT_IN, f"{command} imports more than it did"
            assert found >= EVERY_CALL | modules


def test_calls_need_no_file_but_the_stages(node: Node, pod: Pod, tmp_path: Path) -> None:
    """Of the installed code only the stages are kept: ADD and DEL find all their modules in them."""
    with network_namespace("evt-") as other:
        node.add(Pod(other))
        copy = tmp_path / "code"
        shutil.copytree(library(), copy)
        for package in ("evio_cni", "evio_program"):
            shutil.rmtree(copy / package)
        node.program = [str(launcher(tmp_path, str(copy)))]
        assert node.add(pod).pings("10.244.3.1")
        node.delete(pod)


def test_calls_work_without_stages(node: Node, pod: Pod, tmp_path: Path) -> None:
    """As after an upgrade of the host's Python, for which there are no stages yet."""
    copy = tmp_path / "code"
    shutil.copytree(library(), copy)
    for stages in copy.glob("*.stages"):
        shutil.rmtree(stages)
    node.program = [str(launcher(tmp_path, str(copy)))]
    assert node.add(pod).pings("10.244.3.1")
    node.delete(pod)


def launcher(directory: Path, code: str, preparation: str = "") -> Path:
    """Return a copy of the plugin's launcher that runs some lines first, and then the code of another directory."""
    head, _newline, lines = PLUGIN.read_text().replace(library(), code).partition("\n")
    path = directory / "evio"
    path.write_text(f"{head}\n{preparation}{lines}")
    path.chmod(0o755)
    return path
