"""Where the lab keeps things: names of its files, of its namespaces and of its control group; what it is made of.

`lab down` removes all of it but the cached root file system and images.
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


@dataclass(frozen=True)
class Lab:
    """One lab: the prefix of everything the kernel knows by name, and its directory."""

    prefix: str = "evl"
    state: Path = REPOSITORY / "lab" / ".state"

    @property
    def cache(self) -> Path:
        """What is kept from one lab to the next."""
        return self.state / "cache"

    @property
    def ssh(self) -> Path:
        """The key, the known hosts and the configuration for ssh."""
        return self.state / "ssh"

    @property
    def podman(self) -> Path:
        """Podman's own storage, apart from the machine's."""
        return self.state / "podman"

    @property
    def run(self) -> Path:
        """What podman keeps for as long as nodes run; it takes no path longer than 50 characters for that."""
        return Path(f"/run/{self.prefix}-lab")

    @property
    def images(self) -> Path:
        """Archives of the container images that nodes import."""
        return self.cache / "images"

    @property
    def inventory(self) -> Path:
        """The inventory of the lab that is up, for numbers of nodes that inventories/lab does not describe."""
        return self.state / "inventory"

    @property
    def internet_log(self) -> Path:
        """What the host on the internet was asked, and by which address: a JSON object a line."""
        return self.state / "internet.log"

    @property
    def capture(self) -> Path:
        """What crossed the public segment during the last proof."""
        return self.state / "prove.pcap"

    @property
    def description(self) -> Path:
        """What the lab is made of; there as long as anything of it is."""
        return self.state / "lab.json"

    @property
    def cgroup(self) -> str:
        """The control group that holds every process of every node."""
        return f"/{self.prefix}"

    def node(self, name: str) -> Path:
        """One node's files: overlay, machine-id, volumes."""
        return self.state / "nodes" / name

    def netns(self, host: str) -> str:
        """Name of the network namespace of a node, a router or a segment."""
        return f"{self.prefix}-{host}"

    def write(self, topology: Topology, *, is_complete: bool) -> None:
        """Note what the lab is made of, before it is made (not complete) and after."""
        content = {"complete": is_complete, **topology.as_dict()}
        write_file(self.description, json.dumps(content, indent=1) + "\n")

    def read(self) -> Description | None:
        """What the lab is made of, or None where none was begun."""
        try:
            content: dict[str, Any] = json.loads(self.description.read_text())
        except FileNotFoundError:
            return None
        return Description(from_dict(content), bool(content["complete"]))

    def topology(self) -> Topology:
        """The topology of the lab that is up. Raises LabError if none is."""
        described = self.read()
        if described is None or not described.is_complete:
            raise LabError("the lab is not up: run lab/lab up")
        return described.topology

    @contextmanager
    def changed_by_one(self) -> Iterator[None]:
        """Hold the lab's lock: two that build or break it would meet halfway. Raises LabError if it is held."""
        self.state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError("another lab/lab is building or changing the lab") from error
        else:
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Description:
    """What lab.json says."""

    topology: Topology
    is_complete: bool


def write_file(path: Path, content: str, *, mode: int = 0o644) -> None:
    """Write a whole file: under another name, flushed, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
