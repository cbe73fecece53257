# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A double of a container runtime: a server with CRI's own generated code, on a real socket."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from cri_api.v1 import api_pb2, api_pb2_grpc


class RuntimeDouble(api_pb2_grpc.RuntimeServiceServicer):  # type: ignore[misc]
    """Answers Status with ``answer`` and ListPodSandbox with ``pods``, and keeps the requests for Status."""

    def __init__(self) -> None:
        self.answer = api_pb2.StatusResponse()
        self.asked: list[Any] = []
        self.pods: list[Any] = []

    def Status(self, request: Any, context: Any) -> Any:  # noqa: N802  (the service's name)
        self.asked.append(request)
        return self.answer

    def ListPodSandbox(self, _request: Any, _context: Any) -> Any:  # noqa: N802  (the service's name)
        return api_pb2.ListPodSandboxResponse(items=self.pods)

    def runs(self, sandbox_id: str, namespace: str, name: str) -> None:
        """List a sandbox of this pod from now on."""
        metadata = api_pb2.PodSandboxMetadata(name=name, namespace=namespace)
        self.pods.append(api_pb2.PodSandbox(id=sandbox_id, metadata=metadata))

    def loads(self, *conflists: object, ready: bool = True) -> None:
        networks = [{"Config": {"Source": json.dumps(conflist)}} for conflist in conflists]
        self.answer = api_pb2.StatusResponse(
            status=api_pb2.RuntimeStatus(
                conditions=[
                    api_pb2.RuntimeCondition(type="RuntimeReady", status=True),
                    api_pb2.RuntimeCondition(
                        type="NetworkReady", status=ready, message="" if ready else "cni plugin not initialized"
                    ),
                ]
            ),
            info={"cniconfig": json.dumps({"Networks": networks}), "golang": '"go1.19"'},
        )


@contextlib.contextmanager
def serve(socket: Path) -> Iterator[tuple[RuntimeDouble, str]]:
    """Serve a double at this socket; yield it and the socket's path."""
    double = RuntimeDouble()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    add: Callable[[RuntimeDouble, grpc.Server], None] = api_pb2_grpc.add_RuntimeServiceServicer_to_server
    add(double, server)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    try:
        yield double, str(socket)
    finally:
        server.stop(None).wait()
