# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Stands for a container runtime: pods as namespaces, and the built plugin called as containerd calls it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .ovs_daemons import DATAPATH, PATIENCE, OpenVSwitch, in_namespace, network_namespace

REPOSITORY = Path(__file__).resolve().parents[6]
PLUGIN = REPOSITORY / "build/bin/evio"
CNI_PLUGINS = "/usr/lib/cni"
"""Where Debian's containernetworking-plugins are."""


def library() -> str:
    """The directory of the code that the built plugin runs, as its launcher says."""
    found = re.search(r"sys\.path\.insert\(0, '(.*)'\)", PLUGIN.read_text())
    if found is None:
        raise RuntimeError(f"{PLUGIN} names no directory of code")
    return found[1]


class PluginFailedError(Exception):
    """The plugin's error object."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer.get("msg", str(answer)))
        self.answer = answer
        self.code = answer.get("code")


@dataclass
class Pod:
    """A pod's namespace, and what the plugin has said of it."""

    netns: str
    container_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/run/netns/{self.netns}"

    @property
    def address(self) -> str:
        return str(self.result["ips"][0]["address"]).partition("/")[0]

    def run(self, *command: str, check: bool = True) -> str:
        return in_namespace(self.netns, *command, check=check).stdout

    def pings(self, address: str) -> bool:
        return in_namespace(self.netns, "ping", "-c1", "-W2", "-n", address, check=False).returncode == 0


NewPod = Callable[[], Pod]
"""The fixture ``new_pod``: makes one more pod."""


class Node:
    """A node's namespace with Open vSwitch, and its network's configuration."""

    def __init__(self, switch: OpenVSwitch, directory: Path, **changes: Any) -> None:
        self.switch = switch
        self.directory = directory
        self.program = [str(PLUGIN)]
        self.conf: dict[str, Any] = {
            "cniVersion": "1.0.0",
            "name": "evio",
            "type": "evio",
            "bridge": "br-evio",
            "isGateway": True,
            "isDefaultGateway": True,
            "ipMasq": True,
            "mtu": 1420,
            "gateway": "10.244.3.1/24",
            "clusterCIDRs": ["10.10.0.0/16", "10.244.0.0/16"],
            "datapathType": DATAPATH,
            "ovsdb": switch.ovsdb,
            "stateDir": str(directory / "state"),
            "epoch": 7,
            "ipam": {
                "type": "host-local",
                "dataDir": str(directory / "ipam"),
                "ranges": [[{"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.2", "rangeEnd": "10.244.3.254"}]],
            },
            **changes,
        }

    def call(self, command: str, pod: Pod | None = None, **changes: Any) -> dict[str, Any]:
        """One call; ``changes`` with names in capitals are of the environment, others of the configuration."""
        environment = {"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_PATH": CNI_PLUGINS}
        if pod is not None:
            environment |= {"CNI_CONTAINERID": pod.container_id, "CNI_NETNS": pod.path, "CNI_IFNAME": "eth0"}
        environment |= {key: value for key, value in changes.items() if key.isupper()}
        conf = self.conf | {key: value for key, value in changes.items() if not key.isupper()}
        return self.call_raw(json.dumps({key: value for key, value in conf.items() if value is not None}), environment)

    def call_raw(self, stdin: str, environment: dict[str, str]) -> dict[str, Any]:
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.switch.netns}", *self.program],
            input=stdin,
            env={key: value for key, value in environment.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=60 * PATIENCE,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        if done.returncode != 0:
            raise PluginFailedError(answer)
        return answer

    def write_conflist(self) -> None:
        """Write the configuration to ``net.d``, where the operator's commands look for it."""
        conf_dir = self.directory / "net.d"
        conf_dir.mkdir(exist_ok=True)
        entry = {key: value for key, value in self.conf.items() if key not in ("name", "cniVersion")}
        conflist = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "evio", "plugins": [entry]}
        (conf_dir / "10-evio.conflist").write_text(json.dumps(conflist))

    def add(self, pod: Pod, **changes: Any) -> Pod:
        pod.result = self.call("ADD", pod, **changes)
        return pod

    def delete(self, pod: Pod, **changes: Any) -> None:
        self.call("DEL", pod, **({"prevResult": pod.result} if pod.result else {}) | changes)

    def add_and_lose(self) -> Pod:
        """A pod whose namespace has gone without a DEL; returns when the kernel has taken it apart."""
        with network_namespace("evt-") as name:
            pod = self.add(Pod(name))
        self.await_loss(pod)
        return pod

    def await_loss(self, pod: Pod) -> None:
        """Until the kernel has taken apart the pair of a pod whose namespace has gone."""
        entry = self.directory / f"state/evio/{pod.container_id}:eth0"
        host = (
            pod.result["interfaces"][1]["name"] if pod.result else json.loads(entry.read_text().splitlines()[0])["host"]
        )
        deadline = time.monotonic() + 10 * PATIENCE
        while host in self.veths():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{host} is still there")
            time.sleep(0.02)

    def ports(self) -> Sequence[str]:
        return self.switch.vsctl("list-ports", str(self.conf["bridge"])).split()

    def veths(self) -> list[str]:
        links = json.loads(in_namespace(self.switch.netns, "ip", "-j", "link").stdout)
        return [link["ifname"] for link in links if link["ifname"].startswith("evpod")]

    def reservations(self) -> list[str]:
        directory = self.directory / "ipam/evio"
        return sorted(path.name for path in directory.glob("*.*.*.*")) if directory.is_dir() else []

    def journal(self) -> list[str]:
        directory = self.directory / "state/evio"
        return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []

    def note(self, pod: Pod, **said: object) -> None:
        """Let the journal say something else of the pod."""
        with (self.directory / f"state/evio/{pod.container_id}:eth0").open("a", encoding="ascii") as entry:
            entry.write(json.dumps(said) + "\n")

    def flows(self) -> list[str]:
        """The bridge's flows that match a port, whether that is there or gone."""
        target = f"unix:{self.switch.directory}/{self.conf['bridge']}.mgmt"
        command = ["ovs-ofctl", "-O", "OpenFlow13", "--no-stats", "--no-names", "dump-flows", target]
        lines = in_namespace(self.switch.netns, *command).stdout.splitlines()
        return sorted(line.strip() for line in lines if "in_port" in line)

    def dead_flows(self) -> list[str]:
        """Those that match ports that are gone: until the next ADD or GC."""
        numbers = self.switch.vsctl("--bare", "--columns=ofport", "list", "Interface").split()
        return [flow for flow in self.flows() if re.search(r"in_port=(\d+)", flow)[1] not in numbers]  # type: ignore[index]

    def forgotten_flows(self) -> list[str]:
        """Dead flows but those that close a port before it exists: GC and repair leave them to an ADD for a while."""
        return [flow for flow in self.dead_flows() if "priority=65535" not in flow]

    def leftovers(self) -> dict[str, Sequence[str]]:
        """What is there of any pod; nothing at all after the last DEL."""
        found = {
            "ports": self.ports(),
            "veths": self.veths(),
            "reservations": self.reservations(),
            "journal": self.journal(),
        }
        return {kind: names for kind, names in found.items() if names}


def overlay_says(node: Node, text: str) -> None:
    """Let the plugin find this in the place where the overlay's agent writes, which is the whole host's."""
    state = node.directory / "overlay.json"
    state.write_text(text)
    with_paths(node, OVERLAY_STATE=str(state))


def with_paths(node: Node, **changes: str) -> None:
    """Let the program look elsewhere for what has its place on the whole host; names are those of ``paths``."""
    launcher = f"import sys; sys.path.insert(0, {library()!r}); from evio_cni import paths;"
    launcher += "".join(f"paths.{name} = {value!r};" for name, value in changes.items())
    launcher += "from evio_program.main import main; main()"
    node.program = ["/usr/bin/python3", "-ISE", "-c", launcher]


@contextlib.contextmanager
def own_ipam(node: Node, answer: str, status: int) -> Iterator[Path]:
    """An IPAM plugin that knows every verb of CNI 1.1.0, as host-local of today's distributions does not.

    Gives the file in which it writes the verbs it is called with; what it was told last is in ``stdin`` beside it.
    """
    directory = node.directory / "ipam-plugins"
    directory.mkdir()
    plugin = directory / "own-ipam"
    plugin.write_text(
        f"#!/bin/sh\necho $CNI_COMMAND >> {directory}/calls\ncat > {directory}/stdin\n"
        f"cat <<'END'\n{answer}\nEND\nexit {status}\n"
    )
    plugin.chmod(0o755)
    before = node.conf["ipam"]
    node.conf["ipam"] = {"type": plugin.name}
    try:
        yield directory / "calls"
    finally:
        node.conf["ipam"] = before
