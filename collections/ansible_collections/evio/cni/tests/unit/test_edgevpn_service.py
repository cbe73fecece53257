# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sessions of EdgeVPN.io on its signalling server, as the kernel counts them: the sockets are real."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.service import (
    ServiceState,
    count_sessions,
    is_answering,
)

OWN = ServiceState(main_pid=os.getpid(), control_group="", started=1.0)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_only_sessions_that_the_server_has_not_ended_count(server: socket.socket) -> None:
    port = server.getsockname()[1]
    assert count_sessions(OWN, [port]) == 0
    first, second = (socket.create_connection(server.getsockname()) for _session in range(2))
    accepted = [server.accept()[0] for _session in range(2)]
    try:
        assert count_sessions(OWN, [port]) == 2
        assert count_sessions(OWN, [port + 1]) == 0
        accepted[0].close()
        # The client has not noticed: EdgeVPN.io's controller does not either.
        assert count_sessions(OWN, [port]) == 1
    finally:
        for one in (first, second, *accepted):
            one.close()


def test_sessions_of_other_processes_do_not_count(server: socket.socket) -> None:
    """On the signalling host, prosody's ends of all nodes' sessions are there too."""
    with socket.create_connection(server.getsockname()):
        port = server.getsockname()[1]
        parent = ServiceState(main_pid=os.getppid(), control_group="", started=1.0)
        assert count_sessions(OWN, [port]) == 1
        assert count_sessions(parent, [port]) == 0
        assert count_sessions(ServiceState(0, "", 0.0), [port]) == 0


def test_server_answers_while_it_listens(server: socket.socket) -> None:
    host, port = server.getsockname()
    assert is_answering(host, port)
    server.close()
    assert not is_answering(host, port)
    assert not is_answering("no.such.host.invalid", port)
