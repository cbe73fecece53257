# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The installed program's metrics are true for a real node: its pods, its room, what was repaired and what failed."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import time
from pathlib import Path

import pytest

from .cni_runtime import PLUGIN, NewPod, Node, PluginFailedError
from .ovs_daemons import in_namespace

pytestmark = pytest.mark.root


def evio(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    node.conf["type"] = "evio"
    node.write_conflist()
    return in_namespace(
        node.switch.netns, str(PLUGIN), *arguments, "--conf-dir", str(node.directory / "net.d"), check=False
    )


def metrics(node: Node, *, create: bool = True) -> dict[str, float]:
    """Return the samples by name and labels, from the file that the timer writes or else from standard output."""
    directory = node.directory / "textfile"
    where = ("--textfile-directory", str(directory)) if create else ()
    done = evio(node, "metrics", "--state-dir", str(node.conf["stateDir"]), *where)
    assert done.returncode == 0, done.stderr
    text = (directory / "evio.prom").read_text() if create else done.stdout
    return {key: float(value) for key, value in re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}


def test_attachments_and_room_are_those_of_the_node(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    told = metrics(node)
    assert told['evio_attachments{network="evio",state="plugged in"}'] == 1
    assert told['evio_pod_addresses{network="evio",subnet="10.244.3.0/24"}'] == 253
    assert told['evio_pod_addresses_reserved{network="evio",subnet="10.244.3.0/24"}'] == 1
    assert told['evio_network_ready{network="evio"}'] == 1
    node.delete(pod)
    assert metrics(node)['evio_attachments{network="evio",state="plugged in"}'] == 0


def test_calls_are_counted_by_duration_and_failures_by_code(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())  # Nobody counts yet.
    metrics(node)
    begun = time.monotonic()
    others = [node.add(new_pod()) for _number in range(3)]
    passed = time.monotonic() - begun
    for other in others:
        node.delete(other)
    with pytest.raises(PluginFailedError) as failure:
        node.call("ADD", new_pod(), vlan=5000)
    told = metrics(node)
    assert told['evio_cni_call_duration_seconds_count{verb="ADD"}'] == 4
    assert told['evio_cni_call_duration_seconds_count{verb="DEL"}'] == 3
    # The interpreter's start and the work, but not the process's start and end, nor namespaces' making.
    assert 0.005 * 4 < told['evio_cni_call_duration_seconds_sum{verb="ADD"}'] < passed + 1
    assert told[f'evio_cni_failures_total{{verb="ADD",code="{failure.value.code}"}}'] == 1
    assert sum(value for key, value in told.items() if key.startswith("evio_cni_failures_total")) == 1
    node.delete(pod)
    assert metrics(node)['evio_cni_call_duration_seconds_count{verb="DEL"}'] == 4


def test_metrics_that_cannot_be_counted_fail_no_call(node: Node, new_pod: NewPod) -> None:
    metrics(node)
    log = node.directory / "state/.metrics/events"
    log.unlink()
    log.mkdir()
    node.delete(node.add(new_pod()))
    log.rmdir()
    os.mkfifo(log)
    node.delete(node.add(new_pod()))
    assert node.leftovers() == {}


def test_repairs_are_counted_and_the_sum_survives(node: Node, new_pod: NewPod) -> None:
    before = metrics(node)['evio_repairs_total{kind="plugged"}']
    pod = node.add(new_pod())
    for _time in range(2):
        [port] = node.ports()
        node.switch.vsctl("del-port", "br-evio", port)
        assert evio(node, "repair").returncode == 0
    told = metrics(node)
    assert told['evio_repairs_total{kind="plugged"}'] == before + 2
    assert evio(node, "repair").returncode == 0
    assert metrics(node)['evio_repairs_total{kind="plugged"}'] == before + 2
    node.delete(pod)


def test_switch_that_is_down_is_told_and_does_not_keep_the_rest(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    node.switch.kill_vswitchd()
    told = metrics(node)
    assert told['evio_network_ready{network="evio"}'] == 0
    assert told['evio_attachments{network="evio",state="not served"}'] == 1
    assert told['evio_problems{severity="error"}'] >= 1
    assert 'evio_pod_addresses{network="evio",subnet="10.244.3.0/24"}' in told


def test_file_is_readable_for_node_exporter_and_printing_writes_nothing(node: Node) -> None:
    assert "evio_repairs_total" not in " ".join(metrics(node, create=False))
    assert not Path(str(node.conf["stateDir"]), ".metrics").exists()
    metrics(node)
    assert stat.S_IMODE((node.directory / "textfile/evio.prom").stat().st_mode) == 0o644
    assert [path.name for path in (node.directory / "textfile").iterdir()] == ["evio.prom"]


def test_directory_that_cannot_be_written_is_named(node: Node) -> None:
    blocked = node.directory / "file"
    blocked.write_text("")
    done = evio(node, "metrics", "--state-dir", str(node.conf["stateDir"]), "--textfile-directory", str(blocked))
    assert done.returncode == 1
    assert f"cannot write {blocked}/evio.prom" in done.stderr
