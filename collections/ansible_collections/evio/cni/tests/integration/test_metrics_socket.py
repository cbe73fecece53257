# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The units that write and serve metrics are valid, and the program answers as systemd starts it for a connection.

systemd-socket-activate, a program of systemd, stands for the manager: it accepts, and hands the connection over as
standard input and output. What the manager adds, limits and the user, is only checked for its syntax here.
"""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest

from .cni_runtime import PLUGIN

TEMPLATES = Path(__file__).resolve().parents[2] / "roles/cni/templates"
UNITS = ("evio-metrics.service", "evio-metrics.timer", "evio-metrics.socket", "evio-metrics@.service")


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A port of the loopback at which the built program answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = int(free.getsockname()[1])
    command = ["systemd-socket-activate", "--accept", "--inetd", f"--listen=127.0.0.1:{number}"]
    command += [str(PLUGIN), "metrics", "--answer-http", "--textfile-directory", str(tmp_path)]
    command += ["--allow", "127.0.0.0/29"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 30
        # Until the kernel's table has it: a connection would already start the program.
        while not re.search(rf"0100007F:{number:04X} 00000000:0000 0A", Path("/proc/net/tcp").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield number
        server.terminate()


def get(port: int, path: str = "/metrics", source: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=(source, 0))
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_program_answers_each_connection(port: int, tmp_path: Path) -> None:
    assert get(port)[0] == 503
    (tmp_path / "evio.prom").write_text("evio_fenced 1\n")
    assert get(port) == (200, "evio_fenced 1\n")
    assert get(port, "/etc/passwd")[0] == 404


def test_strangers_are_refused(port: int, tmp_path: Path) -> None:
    (tmp_path / "evio.prom").write_text("evio_fenced 1\n")
    assert get(port, source="127.0.0.8")[0] == 403
    assert get(port, source="127.0.0.7")[0] == 200


def test_network_that_is_none_is_refused(tmp_path: Path) -> None:
    command = [str(PLUGIN), "metrics", "--answer-http", "--textfile-directory", str(tmp_path), "--allow", "10.10.0.1"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "10.10.0.1 is no network in CIDR notation" in done.stderr) == (2, True)


def test_silent_client_keeps_no_other_from_the_metrics(port: int, tmp_path: Path) -> None:
    (tmp_path / "evio.prom").write_text("evio_fenced 1\n")
    with socket.create_connection(("127.0.0.1", port)):
        assert get(port)[0] == 200


def test_standard_input_that_is_no_socket_is_named(tmp_path: Path) -> None:
    command = [str(PLUGIN), "metrics", "--answer-http", "--textfile-directory", str(tmp_path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "cannot answer on standard input" in done.stderr
    done = subprocess.run(
        command[:3], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )
    assert "--answer-http needs --textfile-directory" in done.stderr


@pytest.mark.parametrize("address", ["10.10.0.3", "fd00:10::3"])
def test_units_are_valid(tmp_path: Path, address: str) -> None:
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    environment.filters["regex_replace"] = lambda text, pattern, new: re.sub(pattern, new, text)
    values = {
        "ansible_managed": "managed",
        "evio_cni_bin_dir": str(PLUGIN.parent),
        "evio_cni_conf_dir": "/etc/cni/net.d",
        "evio_cni_state_dir": "/var/lib/evio-cni",
        "__evio_metrics_directory": "/run/evio-metrics",
        "evio_host_overlay_address": address,
        "evio_metrics_port": 9469,
        "__evio_metrics_readers": ["10.10.0.0/16", "fd00:10::/64"],
    }
    for unit in UNITS:
        text = environment.from_string((TEMPLATES / f"{unit}.j2").read_text()).render(values)
        (tmp_path / unit).write_text(text)
    listens = re.search(r"ListenStream=(.*)", (tmp_path / "evio-metrics.socket").read_text())
    assert listens is not None
    assert listens[1] == (f"[{address}]:9469" if ":" in address else f"{address}:9469")
    assert "--allow 10.10.0.0/16 --allow fd00:10::/64\n" in (tmp_path / "evio-metrics@.service").read_text()
    paths = [str(tmp_path / unit) for unit in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "evio-metrics" in line]
    assert ours == []
