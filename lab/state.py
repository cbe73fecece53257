"""The lab's state on this machine: paths of its files, names of its namespaces, its description and its lock.

`lab/lab down` removes all of it except the cached root file system and images.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import LabError
from topology import Topology, from_dict

REPOSITORY = Path(__file__).resolve().parent.parent
PREFIX = os.environ.get("EVIO_LAB_PREFIX", "evl")
"""Prefix of the names of a checkout's lab. With different prefixes, labs of several checkouts can be up together."""


@dataclass(frozen=True)
class Lab:
    """One lab: the prefix of its names in the kernel, and the directory of its files."""

    prefix: str = PREFIX
    state: Path = REPOSITORY / "lab" / ".state"

    @property
    def cache(self) -> Path:
        """Directory of what stays when the lab goes: root file system and images."""
        return self.state / "cache"

    @property
    def ssh(self) -> Path:
        """Directory of the key, the known hosts and the configuration for ssh."""
        return self.state / "ssh"

    @property
    def podman(self) -> Path:
        """Directory of the storage of the lab's podman, apart from the machine's own."""
        return self.state / "podman"

    @property
    def run(self) -> Path:
        """Directory of podman's files of running nodes; podman takes at most 50 characters for its path."""
        return Path(f"/run/{self.prefix}-lab")

    @property
    def images(self) -> Path:
        """Directory of the archives of the container images that nodes import."""
        return self.cache / "images"

    @property
    def inventory(self) -> Path:
        """Directory of the Ansible inventory of the lab that is up, whatever its number of nodes."""
        return self.state / "inventory"

    @property
    def internet_log(self) -> Path:
        """Log of the internet host: a line of JSON for each request, with the client's address."""
        return self.state / "internet.log"

    @property
    def capture(self) -> Path:
        """Capture of the public segment during the last proof (pcap)."""
        return self.state / "prove.pcap"

    @property
    def description(self) -> Path:
        """File that describes the lab's topology; it exists for as long as any part of the lab does."""
        return self.state / "lab.json"

    @property
    def cgroup(self) -> str:
        """Name of the control group that holds every process of every node."""
        return f"/{self.prefix}"

    def node(self, name: str) -> Path:
        """Directory of one node's files: overlay, volumes, pid file."""
        return self.state / "nodes" / name

    def disk(self, name: str) -> Path:
        """Disk of a node that is a virtual machine; not in the node's directory, which the machine can read."""
        return self.state / "nodes" / f"{name}.disk"

    def is_machine(self, name: str) -> bool:
        """Whether a node is a virtual machine."""
        return self.disk(name).exists()

    def netns(self, host: str) -> str:
        """Return the name of the network namespace of a node, a router or a segment."""
        return f"{self.prefix}-{host}"

    def write(self, topology: Topology, *, is_complete: bool) -> None:
        """Write the description, which is complete once the whole lab is built, and claim the prefix for it."""
        write_file(self._claim, f"{self.state}\n")
        content = {"complete": is_complete, **topology.as_dict()}
        write_file(self.description, json.dumps(content, indent=1) + "\n")

    @property
    def _claim(self) -> Path:
        """File that names the state directory of the lab that has this prefix."""
        return self.run / "state"

    def other_owner(self) -> Path | None:
        """Return the state directory of the lab of another checkout that has this prefix, or None."""
        try:
            state = Path(self._claim.read_text().strip())
        except FileNotFoundError:
            return None
        return state if state != self.state and (state / self.description.name).exists() else None

    def read(self) -> Description | None:
        """Return the description, or None if no lab was begun."""
        try:
            content: dict[str, Any] = json.loads(self.description.read_text())
        except FileNotFoundError:
            return None
        return Description(from_dict(content), bool(content["complete"]))

    def topology(self) -> Topology:
        """Return the topology of the lab that is up. Raises LabError if no lab is up."""
        described = self.read()
        if described is None or not described.is_complete:
            raise LabError("the lab is not up: run lab/lab up")
        return described.topology

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lab's lock while changing it. Raises LabError if another process holds it."""
        self.state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError("another lab/lab is building or changing the lab: wait until it has ended") from error
        else:
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Description:
    """The content of lab.json: the topology, and whether all of it was built."""

    topology: Topology
    is_complete: bool


def write_file(path: Path, content: str, *, mode: int = 0o644) -> None:
    """Write a file atomically: under a temporary name, flushed, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
