# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask the container runtime, by CRI v1: whether it has loaded our conflist, and which pods it runs.

These two calls need only a few fields of their answers. They are decoded here, so that nodes need grpc but no generated
code (protobuf.dev, "Encoding").
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import EvioError

CONTAINERD = "/run/containerd/containerd.sock"
"""containerd's socket."""

_STATUS = "/runtime.v1.RuntimeService/Status"
_LIST_POD_SANDBOX = "/runtime.v1.RuntimeService/ListPodSandbox"
_VERBOSE_REQUEST = b"\x08\x01"
"""StatusRequest{verbose: true}: containerd's answer then has the configuration that it has loaded."""

_PAUSE = 0.1
"""Seconds between two calls."""

_LONGEST_NAME = 253
"""Characters of a pod's name or namespace (Kubernetes: DNS subdomain names). What is longer is cut."""

_INSTANCES_OF_CONTAINERD = 8
"""inotify instances that containerd 1.6 takes when it starts (measured)."""


class CriError(EvioError):
    """The runtime does not answer, or has not loaded the network."""


class NoCriServiceError(CriError):
    """The runtime answers, but does not serve CRI."""


@dataclass(frozen=True)
class NetworkStatus:
    """The state of the runtime's network."""

    ready: bool
    """Its condition NetworkReady."""
    message: str
    """Why it is not ready."""
    sources: tuple[Any, ...]
    """The conflists that it has loaded, as the files had them."""
    conf_dir: str | None = None
    """The directory of its CNI configuration; None if the runtime does not tell it. containerd does."""
    bin_dirs: tuple[str, ...] = ()
    """The directories of its CNI plugins; empty if the runtime does not tell them."""


@dataclass(frozen=True)
class PodName:
    """What Kubernetes calls a pod."""

    namespace: str
    name: str


def network_status(socket: str = CONTAINERD, *, timeout: float = 5.0) -> NetworkStatus:
    """Return the runtime's status; ``timeout`` is in seconds. Raises CriError if it does not answer."""
    return _parse_status(_call(_STATUS, _VERBOSE_REQUEST, socket, timeout))


def pod_names(socket: str = CONTAINERD, *, timeout: float = 5.0) -> dict[str, PodName]:
    """Return the names of the runtime's pods by the ids of their sandboxes, which CNI calls container ids.

    ``timeout`` is in seconds. Raises CriError if the runtime does not answer. The names are another program's text.
    """
    # runtime/v1/api.proto: ListPodSandboxResponse{1 items{1 id, 2 metadata{1 name, 2 uid, 3 namespace, 4 attempt}}}
    found = {}
    for number, sandbox in _fields(_call(_LIST_POD_SANDBOX, b"", socket, timeout)):
        if number == 1:
            fields = dict(_fields(sandbox))
            metadata = dict(_fields(fields.get(2, b"")))
            found[_text(fields.get(1, b""))] = PodName(_text(metadata.get(3, b"")), _text(metadata.get(1, b"")))
    return found


def _call(method: str, request: bytes, socket: str, timeout: float) -> bytes:
    try:
        import grpc  # Rare, and 100 ms: only nodes with a container runtime ask.
    except ImportError as error:
        raise CriError("asking the container runtime needs grpc: install the package python3-grpcio") from error
    # Whatever proxy the environment names: the socket is on this host.
    with grpc.insecure_channel(f"unix://{socket}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer: bytes = channel.unary_unary(method)(request, timeout=timeout)
        except grpc.RpcError as error:
            reason = error.details() if isinstance(error, grpc.Call) else str(error)
            if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise NoCriServiceError(_why_without_cri(socket, str(reason))) from error
            raise CriError(
                f"the container runtime at {socket} does not answer: {reason}; is it running? For containerd, look at: "
                "systemctl status containerd"
            ) from error
    return answer


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")[:_LONGEST_NAME]


def await_network(
    conflist: dict[str, Any], socket: str = CONTAINERD, *, timeout: float = 10.0, multus: str | None = None
) -> None:
    """Wait until the runtime has loaded this conflist and its network is ready. Raises CriError after ``timeout`` s.

    ``multus`` is the name of the network of a multus that gives pods this conflist: the runtime loads that network.
    """
    deadline = time.monotonic() + timeout
    while True:
        status = network_status(socket)
        is_loaded = conflist in status.sources or any(_name(source) == multus for source in status.sources)
        if status.ready and is_loaded:
            return
        if time.monotonic() >= deadline:
            found = status.message or f"loaded instead: {[_name(source) for source in status.sources]}"
            raise CriError(
                f"the container runtime at {socket} has not loaded the network {conflist['name']!r} "
                f"after {timeout:g} s: {found}"
            )
        time.sleep(_PAUSE)


def refuse_other_directories(status: NetworkStatus, socket: str, conf_dir: str, bin_dir: str) -> None:
    """Raise CriError if the runtime reads CNI configuration or plugins from other directories than these."""
    if status.conf_dir is not None and os.path.realpath(status.conf_dir) != os.path.realpath(conf_dir):
        raise CriError(
            f"the container runtime at {socket} reads CNI configuration from {status.conf_dir}, not from {conf_dir}; "
            f"set evio_cni_conf_dir: {status.conf_dir}"
        )
    if status.bin_dirs and os.path.realpath(bin_dir) not in map(os.path.realpath, status.bin_dirs):
        raise CriError(
            f"the container runtime at {socket} looks for CNI plugins in {', '.join(status.bin_dirs)}, not in "
            f"{bin_dir}; set evio_cni_bin_dir: {status.bin_dirs[0]}"
        )


def _why_without_cri(socket: str, reason: str) -> str:
    """Return what to do about a runtime whose CRI service is absent, most often because it failed to start."""
    used, limit = inotify_instances()
    sentence = f"the container runtime at {socket} runs without its CRI service ({reason}); "
    if limit and used >= limit - _INSTANCES_OF_CONTAINERD:
        return sentence + (
            f"root has {used} of {limit} inotify instances, and containerd takes {_INSTANCES_OF_CONTAINERD}: raise "
            "fs.inotify.max_user_instances, for example to 1024 by a file in /etc/sysctl.d, and restart the runtime"
        )
    return sentence + (
        "restart it if the reason is gone; `journalctl -u containerd | grep -i cri` has it: no inotify instance was "
        f"left (fs.inotify.max_user_instances is {limit}, root has {used}), the file config.toml has cri in "
        "disabled_plugins, or containerd is older than 1.6"
    )


def inotify_instances(proc: str = "/proc") -> tuple[int, int]:
    """Return how many inotify instances root's processes have, and how many one user may have; 0 if it is not told."""
    limit = 0
    with contextlib.suppress(OSError, ValueError), open(f"{proc}/sys/fs/inotify/max_user_instances") as file:
        limit = int(file.read())
    used = 0
    for process in filter(str.isdigit, os.listdir(proc)):
        with contextlib.suppress(OSError):
            if os.stat(f"{proc}/{process}").st_uid == 0:
                used += sum(_is_inotify(f"{proc}/{process}/fd/{fd}") for fd in os.listdir(f"{proc}/{process}/fd"))
    return used, limit


def _is_inotify(link: str) -> bool:
    try:
        return os.readlink(link) == "anon_inode:inotify"
    except OSError:
        return False


def _parse_status(answer: bytes) -> NetworkStatus:
    # runtime/v1/api.proto: StatusResponse{1 status{1 conditions{1 type, 2 status, 3 reason, 4 message}}, 2 info<k, v>}
    ready, message, sources = False, "no NetworkReady condition", ()
    conf_dir: str | None = None
    bin_dirs: tuple[str, ...] = ()
    for number, value in _fields(answer):
        if number == 1:
            for _number, condition in _fields(value):
                fields = dict(_fields(condition))
                if fields.get(1) == b"NetworkReady":
                    ready = bool(fields.get(2, 0))
                    message = fields.get(4, b"").decode()
        elif number == 2:
            entry = dict(_fields(value))
            if entry.get(1) == b"cniconfig":
                sources = _sources(entry.get(2, b"{}"))
            elif entry.get(1) == b"config":
                conf_dir, bin_dirs = _directories(entry.get(2, b"{}"))
    return NetworkStatus(ready, message, sources, conf_dir, bin_dirs)


def _sources(cniconfig: bytes) -> tuple[Any, ...]:
    sources = []
    for network in json.loads(cniconfig).get("Networks") or ():
        try:
            sources.append(json.loads(network["Config"]["Source"]))
        except (KeyError, TypeError, ValueError):
            continue
    return tuple(sources)


def _directories(config: bytes) -> tuple[str | None, tuple[str, ...]]:
    """Return containerd's directory of CNI configuration, and those of plugins: containerd 2.1 can have several."""
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        cni = json.loads(config).get("cni") or {}
        bin_dirs = cni.get("binDirs") or [cni.get("binDir")]
        return cni.get("confDir") or None, tuple(str(directory) for directory in bin_dirs if directory)
    return None, ()


def _name(source: Any) -> str:
    return str(source.get("name")) if isinstance(source, dict) else "?"


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protobuf message: an int, or bytes for types with a length.

    Raises CriError for other types, which the messages of CRI do not have.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(message, at)
            yield number, value
        elif wire_type == 2:
            length, at = _varint(message, at)
            yield number, message[at : at + length]
            at += length
        else:
            raise CriError(f"the container runtime's answer has a field of unknown type {wire_type}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at this index, and the index after it."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
