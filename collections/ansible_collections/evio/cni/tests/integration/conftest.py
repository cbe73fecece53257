# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fixtures of the integration tests: a namespace, a real Open vSwitch in it, a node that uses it, and pods."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .cni_runtime import NewPod, Node, Pod
from .edgevpn_segment import conf_of
from .etcd_server import EtcdServer
from .ovs_daemons import OpenVSwitch, network_namespace


@pytest.fixture
def netns() -> Iterator[str]:
    with network_namespace("evt-") as name:
        yield name


@pytest.fixture
def ovs(netns: str) -> Iterator[OpenVSwitch]:
    # Not in tmp_path: with a long test's name in it, the sockets' paths pass the kernel's 108 bytes.
    with tempfile.TemporaryDirectory(prefix="evt-ovs-") as directory:
        switch = OpenVSwitch(netns, Path(directory))
        try:
            yield switch.start()
        finally:
            switch.stop()


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    """Keys of the node's network configuration that a test file sets; by default none."""
    return {}


@pytest.fixture
def node(ovs: OpenVSwitch, tmp_path: Path, conf_changes: dict[str, Any]) -> Node:
    """A node that runs the built plugin on the Open vSwitch of ``ovs``."""
    return Node(ovs, tmp_path, **conf_changes)


@pytest.fixture
def new_pod() -> Iterator[NewPod]:
    """A function that makes a pod in a network namespace of its own; all end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda: Pod(stack.enter_context(network_namespace("evt-")))


@pytest.fixture
def nodes(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[Node]]:
    """Two nodes with the configuration for EdgeVPN.io; the parameter says whether pods are `flat` or `routed`."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in (1, 2):
            directory = tmp_path / f"node{number}"
            (directory / "ovs").mkdir(parents=True)
            switch = OpenVSwitch(stack.enter_context(network_namespace("evt-")), directory / "ovs")
            stack.callback(switch.stop)
            node = Node(switch.start(), directory)
            own = conf_of(f"10.244.{number}.0/24", switch, directory, flat=request.param == "flat")
            ipam = {**own.pop("ipam"), "dataDir": str(directory / "ipam")}  # type: ignore[dict-item]
            node.conf = {"cniVersion": "1.0.0", "name": "evio", **own, "ipam": ipam}
            found.append(node)
        yield found


@pytest.fixture
def etcd_server(tmp_path: Path) -> Iterator[EtcdServer]:
    """Yield an etcd of this test alone, with TLS."""
    (tmp_path / "etcd").mkdir()
    server = EtcdServer(tmp_path / "etcd")
    try:
        yield server.start()
    finally:
        server.stop()
