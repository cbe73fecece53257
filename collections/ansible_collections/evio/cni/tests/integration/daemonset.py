# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The DaemonSet's containers without Kubernetes: podman runs each as the manifest says, against a host's directories.

What the manifest gives a container, and nothing else, is given to podman: command, environment, mounts, capabilities.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from .cni_runtime import REPOSITORY, PluginFailedError, Pod

DAEMONSET = REPOSITORY / "deploy/daemonset"
MANIFEST = DAEMONSET / "evio-cni.yaml"
PROGRAMS = REPOSITORY / "build/evio-programs.zip"
ARCHIVE = REPOSITORY / "build/daemonset/image.tar"
PACKAGES = REPOSITORY / "build/daemonset/packages"
"""What build-image keeps of the image: the unpacked packages."""

_CONTAINERS_CONF = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
"""
_OF_THE_MACHINE = ("/usr", "/proc/sys/net")
"""Directories of the host that the tests do not imitate."""


def manifest() -> dict[str, dict[str, Any]]:
    """Return the manifest's objects by their kind."""
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}


def image_archive() -> Path:
    """Return the image's archive; build it, about 20 s, if the programs or its definition have changed."""
    sources = (PROGRAMS, DAEMONSET / "build-image", DAEMONSET / "Containerfile")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = ARCHIVE.with_suffix(".sources")
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    with stamp.open("a+") as file:
        # Tests may run in several processes at once.
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not ARCHIVE.exists() or file.read() != digest:
            shutil.rmtree(PACKAGES, ignore_errors=True)
            subprocess.run([DAEMONSET / "build-image", ARCHIVE, f"--keep={PACKAGES}"], check=True, timeout=600)
            file.truncate(0)
            file.write(digest)
    return ARCHIVE


class Podman:
    """podman with a storage of its own, and the DaemonSet's image in it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cgroup = f"/evt-{uuid.uuid4().hex[:8]}"
        (directory / "containers.conf").write_text(_CONTAINERS_CONF)
        self.image = manifest()["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]["image"]
        self.run("load", "--quiet", f"--input={image_archive()}", timeout=300)

    def run(self, *arguments: str, timeout: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        here = self._directory
        places = [f"--root={here}/storage", f"--runroot={here}/run", f"--tmpdir={here}/libpod"]
        return subprocess.run(
            ["podman", "--storage-driver=overlay", *places, *arguments],
            env={**os.environ, "CONTAINERS_CONF": f"{here}/containers.conf"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=check,
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a container, with limits that root of this machine may set."""
        limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")
        return self.run("run", f"--cgroup-parent={self._cgroup}", *limits, *arguments, **options)

    def close(self) -> None:
        self.run("rm", "--all", "--force", "--time=0", check=False)
        self.run("rmi", "--all", "--force", check=False)
        subprocess.run(["umount", "--lazy", str(self._directory / "storage/overlay")], check=False, capture_output=True)
        name = self._cgroup[1:]
        for cgroup in (*Path("/sys/fs/cgroup").glob(name), *Path("/sys/fs/cgroup").glob(f"*/{name}")):
            for path in sorted((*cgroup.rglob("*/"), cgroup), reverse=True):
                with contextlib.suppress(OSError):
                    path.rmdir()


class DaemonSetHost:
    """A host with a kubelet: its directories below ``directory``, and a network namespace with Open vSwitch in it."""

    def __init__(self, podman: Podman, directory: Path, netns: str, openvswitch: Path, **settings: str) -> None:
        """``openvswitch`` is seen as /run/openvswitch; ``settings`` replace those of the manifest's ConfigMap."""
        self._podman = podman
        self.directory = directory
        self.netns = netns
        self.settings = {**manifest()["ConfigMap"]["data"], **settings}
        self.secret = directory / "secret"
        self.root = directory / "host"
        self._openvswitch = openvswitch
        self.pod = manifest()["DaemonSet"]["spec"]["template"]["spec"]
        self.machine = {path: Path(path) for path in _OF_THE_MACHINE}
        for volume in self.pod["volumes"]:
            if volume.get("hostPath", {}).get("type") in ("Directory", "DirectoryOrCreate"):
                self.path(volume["hostPath"]["path"]).mkdir(parents=True, exist_ok=True)
        (self.root / "etc").mkdir(exist_ok=True)
        self.path("/etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        self.secret.mkdir()

    def path(self, path: str) -> Path:
        """Return where a path of the host is on this machine."""
        if path == "/run/openvswitch":
            return self._openvswitch
        return self.machine.get(path) or self.root / path.lstrip("/")

    def run(self, name: str, *options: str, drop: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run an init container to its end, with more options of podman, or without some of its capabilities."""
        return self._podman.start("--rm", *self._arguments(name, options, drop), check=False)

    def install(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run("install-programs", *options)

    def configure(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run("configure", *options)

    @contextlib.contextmanager
    def watching(self) -> Iterator[str]:
        """Run the container that watches during the block; yield the name by which podman knows it."""
        name = f"evt-{uuid.uuid4().hex[:8]}"
        self._podman.start("--detach", f"--name={name}", *self._arguments("watch"))
        try:
            yield name
        finally:
            self._podman.run("rm", "--force", "--time=10", name)

    def evio(self, container: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the image's ``evio`` in a running container, as a probe does."""
        return self._podman.run("exec", container, "/usr/lib/evio-cni/bin/evio", *arguments, check=False)

    def logs(self, container: str) -> str:
        done = self._podman.run("logs", container)
        return done.stdout + done.stderr

    def _arguments(self, name: str, options: Sequence[str] = (), drop: Sequence[str] = ()) -> list[str]:
        containers = [*self.pod["initContainers"], *self.pod["containers"]]
        container = next(container for container in containers if container["name"] == name)
        context = container["securityContext"]
        added = [capability for capability in context["capabilities"].get("add", []) if capability not in drop]
        environment = self._environment(container)
        # Kubernetes puts the container's variables into its command.
        command = [re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], word) for word in container["command"]]
        return [
            f"--network=ns:/run/netns/{self.netns}",
            f"--user={self.pod['securityContext']['runAsUser']}:{self.pod['securityContext']['runAsGroup']}",
            *(f"--cap-drop={capability}" for capability in context["capabilities"]["drop"]),
            *(f"--cap-add={capability}" for capability in added),
            *(["--read-only", "--read-only-tmpfs=false"] if context["readOnlyRootFilesystem"] else []),
            *(["--security-opt=no-new-privileges"] if not context["allowPrivilegeEscalation"] else []),
            *(f"--env={key}={value}" for key, value in environment.items()),
            *(self._volume(mount) for mount in container["volumeMounts"]),
            "--no-hosts",
            *options,
            f"--entrypoint={json.dumps(command)}",
            container["image"],
        ]

    def _environment(self, container: dict[str, Any]) -> dict[str, str]:
        values = dict(self.settings) if container.get("envFrom") else {}
        for variable in container.get("env", []):
            values[variable["name"]] = variable["value"] if "value" in variable else self._field(variable["valueFrom"])
        return values

    @staticmethod
    def _field(source: dict[str, Any]) -> str:
        return {"spec.nodeName": "node1"}[source["fieldRef"]["fieldPath"]]

    def _volume(self, mount: dict[str, Any]) -> str:
        volume = next(volume for volume in self.pod["volumes"] if volume["name"] == mount["name"])
        source = self.secret if "secret" in volume else self.path(volume["hostPath"]["path"])
        return f"--volume={source}:{mount['mountPath']}:{'ro' if mount.get('readOnly') else 'rw'}"

    def conflist(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.path("/etc/cni/net.d/10-evio.conflist").read_text())
        return content

    def call(self, command: str, pod: Pod) -> dict[str, Any]:
        """Call the installed plugin as the host's runtime does: at its own paths. Raises PluginFailedError."""
        conflist = self.conflist()
        conf = {**conflist["plugins"][0], "name": conflist["name"], "cniVersion": conflist["cniVersion"]}
        if command == "DEL":
            conf["prevResult"] = pod.result
        done = subprocess.run(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", self._mounts(), "sh", "/opt/cni/bin/evio"],
            input=json.dumps(conf),
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "CNI_COMMAND": command,
                "CNI_PATH": "/opt/cni/bin",
                "CNI_CONTAINERID": pod.container_id,
                "CNI_NETNS": pod.path,
                "CNI_IFNAME": "eth0",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"msg": done.stderr}
        if done.returncode != 0:
            raise PluginFailedError(answer)
        return answer if done.stdout else {}

    def add(self, pod: Pod) -> Pod:
        pod.result = self.call("ADD", pod)
        return pod

    def _mounts(self) -> str:
        """Return a script that puts the host's directories at their paths, in its own mount namespace, and runs "$@".

        The machine's own /opt, /run and /var/lib stay as they are.
        """
        kept = self.directory / "netns"
        kept.mkdir(exist_ok=True)
        binds = {target: self.path(target) for target in ("/opt/cni", "/var/lib/evio-cni", "/var/lib/cni")}
        binds["/run/openvswitch"] = self._openvswitch
        lines = ["set -e", f"mount --rbind /run/netns {kept}"]
        lines += [f"mount -t tmpfs none {directory}" for directory in ("/opt", "/run", "/var/lib")]
        lines += ["mkdir /run/netns", f"mount --rbind {kept} /run/netns"]
        lines += [f"mkdir -p {target}; mount --bind {source} {target}" for target, source in binds.items()]
        return "\n".join([*lines, f'exec nsenter --net=/run/netns/{self.netns} "$@"'])

    def files(self) -> dict[str, tuple[int, int, int]]:
        """Return what tells whether any file of the host was written: by path its inode, size and times."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            status = path.lstat()
            found[str(path)] = (status.st_ino, status.st_size, status.st_mtime_ns)
        return found


def wait_until(condition: Any, seconds: float = 20.0) -> float:
    """Wait until a function returns something true; return the seconds that it took. Raises TimeoutError."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.05)
    return time.monotonic() - started
