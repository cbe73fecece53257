# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A failed call is in systemd's journal with the pod's name; a socket in the place of the journal's receives it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cni_runtime import PLUGIN, NewPod, Node, PluginFailedError

pytestmark = pytest.mark.root

ARGUMENTS = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=1"


class Journal:
    """Receives what is sent to systemd's journal."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0)

    def entry(self) -> dict[str, str]:
        """Return the fields of the next entry, which has been sent already. Raises BlockingIOError if there is none."""
        data, fields = self._socket.recv(1 << 20), {}
        while data:
            name, rest = data.split(b"\n", 1)
            end = 8 + int.from_bytes(rest[:8], "little")
            assert rest[end : end + 1] == b"\n"
            fields[name.decode()], data = rest[8:end].decode("utf-8", "surrogateescape"), rest[end + 1 :]
        return fields

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def journal(node: Node, tmp_path: Path) -> Iterator[Journal]:
    """The journal of the plugin's calls, which see a /run of their own."""
    run = tmp_path / "run"
    run.mkdir()
    received = Journal(tmp_path / "socket")
    script = f"""
        set -e
        mount -t tmpfs run {run}
        mkdir -p {run}/netns {run}/systemd/journal
        mount --rbind /run/netns {run}/netns
        touch {run}/systemd/journal/socket
        mount --bind {tmp_path}/socket {run}/systemd/journal/socket
        mount --rbind {run} /run
        exec {PLUGIN}
    """
    node.program = ["unshare", "-m", "--propagation", "private", "sh", "-c", script]
    yield received
    received.close()


def test_failed_add_is_logged_with_the_name_of_the_pod(node: Node, new_pod: NewPod, journal: Journal) -> None:
    pod = new_pod()
    with pytest.raises(PluginFailedError) as failed:
        node.call("ADD", pod, CNI_ARGS=ARGUMENTS, CNI_NETNS="/run/netns/evt-gone")
    entry = journal.entry()
    assert entry["MESSAGE"] == f"ADD of shop/web-0: {failed.value.answer['msg']}"
    assert entry["SYSLOG_IDENTIFIER"] == "evio"
    assert entry["PRIORITY"] == "3"
    assert (entry["K8S_POD_NAMESPACE"], entry["K8S_POD_NAME"]) == ("shop", "web-0")
    assert (entry["CNI_COMMAND"], entry["CNI_CONTAINERID"], entry["CNI_IFNAME"]) == ("ADD", pod.container_id, "eth0")
    assert entry["CNI_ERROR_CODE"] == str(failed.value.code)


def test_call_that_succeeds_logs_nothing(node: Node, new_pod: NewPod, journal: Journal) -> None:
    pod = node.add(new_pod(), CNI_ARGS=ARGUMENTS)
    node.delete(pod, CNI_ARGS=ARGUMENTS)
    with pytest.raises(BlockingIOError):
        journal.entry()


def test_call_without_a_name_is_logged_with_its_container_id(node: Node, new_pod: NewPod, journal: Journal) -> None:
    pod = new_pod()
    with pytest.raises(PluginFailedError):
        node.call("ADD", pod, CNI_NETNS="/run/netns/evt-gone")
    entry = journal.entry()
    assert entry["MESSAGE"].startswith(f"ADD of {pod.container_id}: ")
    assert "K8S_POD_NAME" not in entry


@pytest.mark.parametrize("name", ["web\nPRIORITY=0\nMESSAGE=forged", "web-\udcff", "x" * 100_000])
def test_name_that_would_forge_fields_or_is_too_long_stays_one_value(
    node: Node, new_pod: NewPod, journal: Journal, name: str
) -> None:
    arguments = f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}"
    with pytest.raises(PluginFailedError):
        node.call("ADD", new_pod(), CNI_ARGS=arguments, CNI_NETNS="/run/netns/evt-gone")
    entry = journal.entry()
    assert entry["K8S_POD_NAME"] == name[:8192]
    assert entry["PRIORITY"] == "3"


def test_status_that_is_asked_for_every_few_seconds_is_not_logged(node: Node, journal: Journal) -> None:
    with pytest.raises(PluginFailedError):
        node.call("STATUS", cniVersion="1.1.0", ovsdb="unix:/nowhere/db.sock")
    with pytest.raises(BlockingIOError):
        journal.entry()


def test_without_a_journal_the_runtime_is_told_all_the_same(node: Node, new_pod: NewPod, journal: Journal) -> None:
    journal.close()
    with pytest.raises(PluginFailedError, match="evt-gone"):
        node.call("ADD", new_pod(), CNI_NETNS="/run/netns/evt-gone")
