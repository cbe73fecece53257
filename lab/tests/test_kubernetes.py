"""The parts of a lab with Kubernetes that need no cluster: images, the node's runc, the counting of lost requests."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import http_requests
import kubernetes_endpoints
import kubernetes_images
import kubernetes_proof
import kubernetes_workload
import pytest
import rows
import udp_requests
from commands import LabError
from http_requests import Loss, Source, Stream, Streams
from state import REPOSITORY, Lab
from topology import plan

SOURCE = Source("pod", "node", "127.0.0.1")
LDD = """\
/usr/bin/etcd:
\tlinux-vdso.so.1 (0x00007fea3997f000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fea3978b000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007fea39981000)
/usr/lib/x86_64-linux-gnu/xtables/libxt_set.so:
\tstatically linked
"""


def test_libraries_of_an_image_are_those_with_a_path() -> None:
    assert list(kubernetes_images._paths(LDD)) == ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]


def test_image_without_a_library_is_refused() -> None:
    with pytest.raises(LabError, match=r"lacks a library: libm\.so\.6"):
        list(kubernetes_images._paths("/usr/bin/x:\n\tlibm.so.6 => not found\n"))


def test_lost_requests_are_counted_for_each_url_and_silence_lasts_until_an_answer() -> None:
    done = [(10.0, "a", None), (11.0, "a", "refused"), (12.0, "a", "reset"), (13.0, "a", None), (14.0, "a", "refused")]
    done += [(10.5, "b", None), (14.5, "b", None)]
    losses = (Loss(11.0, 1.0, "refused"), Loss(12.0, 2.0, "reset"), Loss(14.0, 4.0, "refused"))
    assert list(http_requests.summarised("pod", done)) == [
        Stream("pod", "a", requests=5, lost=3, silence=2.0, losses=losses),
        Stream("pod", "b", requests=2, lost=0, silence=0.0),
    ]


def test_silence_without_an_end_lasts_until_the_last_request() -> None:
    (stream,) = http_requests.summarised("pod", [(0.0, "a", None), (1.0, "a", "x"), (9.0, "a", "x")])
    assert (stream.lost, stream.silence) == (2, 8.0)


def test_backends_are_read_from_the_rules_of_kube_proxy() -> None:
    rules = """\
-A KUBE-SEP-2FL -p udp -m comment --comment "evio-proof/web-node2:udp" -m udp -j DNAT --to-destination 10.244.1.9:8080
-A KUBE-SEP-4FU -p tcp -m comment --comment "evio-proof/web:http" -m tcp -j DNAT --to-destination 10.244.1.2:8080
-A KUBE-SEP-77G -p tcp -m comment --comment "evio-proof/web-node3:http" -m tcp -j DNAT --to-destination 10.244.2.6:8080
-A KUBE-SEP-DPW -s 10.244.0.7/32 -m comment --comment "evio-proof/web:http" -j KUBE-MARK-MASQ
-A KUBE-SEP-KUB -p tcp -m comment --comment "default/kubernetes:https" -m tcp -j DNAT --to-destination 10.10.0.1:6443
-A CNI-DN-a1 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.244.2.3:8080
"""
    assert kubernetes_endpoints.backends_in(rules) == {"10.244.1.2", "10.244.2.6"}


def test_only_what_is_refused_while_a_service_has_no_backend_is_laid_to_kubernetes() -> None:
    withdrawals = kubernetes_endpoints.Withdrawals()
    for at, has_backends in ((5.0, True), (10.0, False), (10.2, False), (11.0, True), (20.0, False)):
        withdrawals.note(at, "web", has_backends)
    withdrawals.note(0.0, "other", True)
    withdrawals.end(21.0)
    assert withdrawals.spans == {"web": [(10.0, 11.0), (20.0, 21.0)]}

    def refused(
        at: float, reason: str = "connecting: ConnectionRefusedError after 0.00 s", host: str = "10.96.0.1"
    ) -> int:
        measured = Streams([Stream("pod", f"http://{host}/", 1, 1, 0.0, (Loss(at, at, reason),))])
        return withdrawals.refused(measured, {"web": "10.96.0.1", "other": "10.96.0.2"})

    assert refused(10.5) == refused(12.0) == refused(20.5) == 1
    assert refused(9.9) == refused(14.0) == 0
    assert refused(10.5, "connecting: TimeoutError after 3.00 s") == refused(10.5, host="10.96.0.2") == 0


def test_watch_of_endpoints_notes_when_a_service_had_no_backend(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "echo web 10.244.1.2 10.244.1.3; echo 'web '; sleep 0.5; echo web 10.244.1.2; echo 'other '; sleep 0.5"

    class PrintingKubectl:
        def command(self, *_arguments: str) -> list[str]:
            return ["sh", "-c", lines]

    monkeypatch.setattr(kubernetes_endpoints, "attempt", lambda *_command: None)
    monkeypatch.setattr(kubernetes_endpoints.nodes, "command", lambda *_arguments: [])
    cluster: Any = SimpleNamespace(kubectl=PrintingKubectl(), lab=lab, nodes=plan(3).nodes)
    with kubernetes_endpoints.watched(cluster) as withdrawals:
        pass
    assert list(withdrawals.spans) == ["web", "other"]
    for [(start, end)] in withdrawals.spans.values():
        assert 0.3 < end - start < 5


def _on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs for nodes and pods run here."""

    def command(_lab: Lab, _source: Source, program: str, *arguments: str) -> list[str]:
        return [sys.executable, "-c", program, *arguments]

    monkeypatch.setattr(http_requests, "command", command)


def test_stream_says_why_a_request_was_lost(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    _on_this_machine(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as full:
        full.settimeout(10)
        url = "http://127.0.0.1:{}/"
        refused = url.format(_unused_port(socket.SOCK_STREAM))
        reset = url.format(full.getsockname()[1])
        with http_requests.streams(lab, [(SOURCE, [refused, reset])]) as measured:
            connection, _client = full.accept()
            # To close a connection whose request is not read resets it.
            connection.recv(1)
            connection.close()
    reasons = {stream.url: [loss.text for loss in stream.losses] for stream in measured}
    assert "connecting: ConnectionRefusedError after 0.0" in reasons[refused][0]
    assert "answer: ConnectionResetError after" in reasons[reset][0]


def test_udp_server_says_who_it_is_and_who_asked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    _on_this_machine(monkeypatch)
    port = _unused_port(socket.SOCK_DGRAM)
    with udp_requests.servers(lab, [SOURCE], port):
        assert udp_requests.ask(lab, SOURCE, [("127.0.0.1", port)] * 2) == ["pod node 127.0.0.1"] * 2
    assert udp_requests.ask(lab, SOURCE, [("127.0.0.1", port)]) == [None]


def test_udp_server_that_does_not_start_is_an_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    _on_this_machine(monkeypatch)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        with (
            pytest.raises(LabError, match=r"(?s)UDP server in pod does not start: .*Traceback"),
            udp_requests.servers(lab, [SOURCE], other.getsockname()[1]),
        ):
            pass


def _unused_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def test_workload_has_a_service_with_backends_on_one_node_for_each_node() -> None:
    items = kubernetes_workload.manifests(plan(3).nodes)["items"]
    deployments = {each["metadata"]["name"]: each["spec"]["template"] for each in items if each["kind"] == "Deployment"}
    for node in plan(3).nodes:
        (service,) = [
            each for each in items if each["metadata"]["name"] == f"web-{node.name}" if each["kind"] == "Service"
        ]
        chosen = [
            template["spec"]["nodeSelector"]["kubernetes.io/hostname"]
            for template in deployments.values()
            if service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
        ]
        assert chosen == [node.name]


def _created(tmp_path: Path, linux: dict[str, Any]) -> dict[str, Any]:
    """Return a container's "linux" as the lab's runc leaves it for runc, in whose place /bin/true runs."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"ociVersion": "1.0.2", "linux": linux}, separators=(",", ":")))
    runc = REPOSITORY / "lab/kubernetes_host/usr/local/sbin/runc"
    script = (
        f"mount --bind /bin/true /usr/sbin/runc && exec {runc} --root /r create --bundle {tmp_path} --pid-file /p id"
    )
    subprocess.run(["unshare", "--mount", "sh", "-ec", script], check=True, timeout=20)
    changed: dict[str, Any] = json.loads(config.read_text())["linux"]
    return changed


@pytest.mark.root
def test_privileged_container_gets_the_usual_devices_and_writes_settings_of_its_network_only(tmp_path: Path) -> None:
    tun = {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200}
    privileged = {
        "resources": {"devices": [{"allow": True, "access": "rwm"}], "memory": {}},
        "devices": [tun],
        "namespaces": [{"type": "pid"}],
    }
    linux = _created(tmp_path, privileged)
    assert linux["resources"] == {"devices": [{"allow": False, "access": "rwm"}], "memory": {}}
    assert "devices" not in linux
    assert linux["namespaces"] == privileged["namespaces"]
    assert "/proc/sys/kernel" in linux["readonlyPaths"]
    assert "/proc/sys/net" not in linux["readonlyPaths"]


@pytest.mark.root
def test_ordinary_container_stays_as_containerd_wants_it(tmp_path: Path) -> None:
    ordinary = {"resources": {"devices": [{"allow": False, "access": "rwm"}]}, "readonlyPaths": ["/proc/sys"]}
    assert _created(tmp_path, ordinary) == ordinary


def test_lab_without_kubernetes_is_refused_before_anything_is_run(lab: Lab) -> None:
    lab.write(plan(3), is_complete=True)
    with pytest.raises(LabError, match="build it with lab/lab up --kubernetes"):
        kubernetes_proof.prove(lab, [])


def test_check_that_cannot_be_made_is_a_failed_row() -> None:
    def check() -> tuple[str, bool]:
        raise LabError("kubectl failed")

    row = rows.measure("a check", check)
    assert (row.holds, "kubectl failed" in row.measured) == (False, True)
