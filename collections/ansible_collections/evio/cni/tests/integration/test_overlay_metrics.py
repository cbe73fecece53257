# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The metrics of a real WireGuard overlay: ways, handshakes, bytes, and counters that never fall."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.device import USERSPACE

from .overlay_lab import COLLECTIONS, DEVICE_KIND, Node, OverlayLab, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        DEVICE_KIND == USERSPACE and shutil.which("wireguard-go") is None,
        reason="wireguard-go is not installed: setup/machine",
    ),
]

_READ = """
import sys
sys.path[:0] = [sys.argv[1], "/usr/lib/python3/dist-packages"]
from ansible_collections.evio.cni.plugins.module_utils.node.metrics import read_metrics
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.agent_files import AgentFiles
d = sys.argv[2]
files = AgentFiles(d + "/overlay.json", d + "/pod-routes.json", d + "/wireguard.key", d + "/state.json")
print(read_metrics(conf_dir=d, state_dir=d + "/counters", files=files, create=True)[0], end="")
"""
"""The program reads the files of the agent at their places in /etc and /run only."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[OverlayLab]:
    overlay_lab = OverlayLab(tmp_path)
    try:
        yield overlay_lab
    finally:
        overlay_lab.close()


def metrics(node: Node) -> dict[str, float]:
    """Return the node's samples by name and labels."""
    text = node.namespace.run(sys.executable, "-c", _READ, str(COLLECTIONS), str(node.directory)).stdout
    return {key: float(value) for key, value in re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}


def test_ways_handshakes_and_bytes_are_those_of_wireguard(lab: OverlayLab) -> None:
    relay, home = lab.public_node("relay"), lab.node("home", lab.router())
    lab.start()
    lab.wait_path(home, relay, "direct")
    lab.wait_reachable()
    first = metrics(home)
    assert first["evio_overlay_up"] == 1
    assert first['evio_overlay_peers{kind="direct"}'] == 1
    assert first['evio_overlay_peers{kind="none"}'] == 0
    assert 0 <= first['evio_overlay_peer_handshake_age_seconds{peer="relay"}'] < 180
    # The agent measures whole milliseconds, and this way is shorter on a quiet machine.
    assert 0 <= first['evio_overlay_peer_rtt_seconds{peer="relay"}'] < 5
    for _packet in range(5):
        assert home.pings(relay.address, "-s", "1000", wait="2")
    second = metrics(home)
    sent = 'evio_overlay_peer_sent_bytes_total{peer="relay"}'
    assert second[sent] >= first[sent] + 5 * 1000
    home.lose_device()
    wait_until(lambda: home.pings(relay.address, wait="1"), 30, "the overlay again", lab)
    third = metrics(home)
    assert third[sent] >= second[sent]
    received = 'evio_overlay_peer_received_bytes_total{peer="relay"}'
    assert third[received] >= second[received] > 0


def test_stopped_agent_is_told(lab: OverlayLab) -> None:
    relay, home = lab.public_node("relay"), lab.node("home", lab.router())
    lab.start()
    lab.wait_path(home, relay, "direct")
    home.stop()
    (home.directory / "state.json").write_text(
        (home.directory / "state.json").read_text().replace('"updated":', '"updated":-')
    )
    told = metrics(home)
    assert told["evio_overlay_up"] == 0
    assert told["evio_overlay_state_age_seconds"] > 20
