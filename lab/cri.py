"""A client of CRI v1, the interface by which kubelet starts pods: the lab starts its pods by it.

The lab's sandboxes and containers have a label; no other sandbox or container is listed or changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from commands import LabError
from cri_api.v1 import api_pb2 as api
from cri_api.v1 import api_pb2_grpc

LABEL = "evio.lab"
NAMESPACE = "evio-lab"
"""The Kubernetes namespace that the lab gives to its pods."""

_NAMESPACES = api.NamespaceOption(network=api.POD, pid=api.CONTAINER, ipc=api.POD)
"""What a pod's containers share: Kubernetes' defaults."""


@dataclass(frozen=True)
class Sandbox:
    """A pod sandbox: its id, its pod's name, its labels, and whether it is ready."""

    sandbox_id: str
    name: str
    labels: dict[str, str]
    is_ready: bool


@dataclass(frozen=True)
class SandboxStatus:
    """A sandbox's address ('' if it has none), and the id of the process in its network namespace."""

    address: str
    pid: int


@dataclass(frozen=True)
class ExecResult:
    """The exit code and output of a command in a container."""

    exit_code: int
    stdout: str
    stderr: str


class Runtime:
    """A connection to a container runtime's socket. Every method raises LabError with the runtime's own message."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel = grpc.insecure_channel(f"unix://{socket}")
        # The generated code has no types.
        self._runtime = api_pb2_grpc.RuntimeServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._images = api_pb2_grpc.ImageServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def has_image(self, name: str) -> bool:
        """Whether the runtime has an image of this name."""
        request = api.ImageStatusRequest(image=api.ImageSpec(image=name))
        return bool(self._call(self._images.ImageStatus, request).image.id)

    def sandboxes(self) -> list[Sandbox]:
        """Return the lab's sandboxes."""
        request = api.ListPodSandboxRequest(filter=api.PodSandboxFilter(label_selector={LABEL: "pod"}))
        listed = self._call(self._runtime.ListPodSandbox, request).items
        return [
            Sandbox(item.id, item.metadata.name, dict(item.labels), item.state == api.SANDBOX_READY) for item in listed
        ]

    def run_sandbox(self, name: str, uid: str, labels: dict[str, str]) -> str:
        """Create a pod's sandbox, for which the runtime calls the CNI plugin; return the sandbox's id."""
        request = api.RunPodSandboxRequest(config=_sandbox_config(name, uid, labels))
        return str(self._call(self._runtime.RunPodSandbox, request, timeout=60).pod_sandbox_id)

    def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        """Return a sandbox's address and process."""
        request = api.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        answer = self._call(self._runtime.PodSandboxStatus, request)
        return SandboxStatus(answer.status.network.ip, int(json.loads(answer.info["info"])["pid"]))

    def remove_sandbox(self, sandbox_id: str) -> None:
        """Stop a sandbox, then remove it with its containers, as kubelet does when a pod is deleted."""
        self._call(self._runtime.StopPodSandbox, api.StopPodSandboxRequest(pod_sandbox_id=sandbox_id), timeout=60)
        self._call(self._runtime.RemovePodSandbox, api.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id), timeout=60)

    def start_container(self, sandbox: Sandbox, uid: str, image: str, command: list[str]) -> str:
        """Create and start a pod's container, and return its id."""
        request = api.CreateContainerRequest(
            pod_sandbox_id=sandbox.sandbox_id,
            config=api.ContainerConfig(
                metadata=api.ContainerMetadata(name="main"),
                image=api.ImageSpec(image=image),
                command=command,
                labels={LABEL: "pod"},
                log_path="main.log",
                linux=api.LinuxContainerConfig(
                    security_context=api.LinuxContainerSecurityContext(namespace_options=_NAMESPACES),
                ),
            ),
            sandbox_config=_sandbox_config(sandbox.name, uid, sandbox.labels),
        )
        container_id = self._call(self._runtime.CreateContainer, request, timeout=60).container_id
        self._call(self._runtime.StartContainer, api.StartContainerRequest(container_id=container_id), timeout=60)
        return str(container_id)

    def running_container(self, sandbox_id: str) -> str | None:
        """Return the id of a sandbox's running container, or None."""
        state = api.ContainerStateValue(state=api.CONTAINER_RUNNING)
        request = api.ListContainersRequest(filter=api.ContainerFilter(pod_sandbox_id=sandbox_id, state=state))
        containers = self._call(self._runtime.ListContainers, request).containers
        return str(containers[0].id) if containers else None

    def execute(self, container_id: str, command: list[str], *, timeout: int = 60) -> ExecResult:
        """Run a command in a container to its end and return what it did; timeout in seconds."""
        request = api.ExecSyncRequest(container_id=container_id, cmd=command, timeout=timeout)
        answer = self._call(self._runtime.ExecSync, request, timeout=timeout + 5)
        return ExecResult(answer.exit_code, answer.stdout.decode(), answer.stderr.decode())

    def _call(self, method: Callable[..., Any], request: Any, *, timeout: float = 20.0) -> Any:
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            reason = error.details() if isinstance(error, grpc.Call) else str(error)
            raise LabError(f"{type(request).__name__.removesuffix('Request')}: {reason}") from error


def _sandbox_config(name: str, uid: str, labels: dict[str, str]) -> Any:
    return api.PodSandboxConfig(
        metadata=api.PodSandboxMetadata(name=name, uid=uid, namespace=NAMESPACE),
        hostname=name,
        log_directory=f"/var/log/pods/{NAMESPACE}_{name}_{uid}",
        labels={LABEL: "pod", **labels},
        linux=api.LinuxPodSandboxConfig(
            security_context=api.LinuxSandboxSecurityContext(namespace_options=_NAMESPACES),
        ),
    )
