# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Delegation to an IPAM plugin (SPEC.md section 4): find it in CNI_PATH, run it, read its result.

The plugin's process is started as early as possible and waited for as late as possible, so that the kernel and Open
vSwitch work beside it. It does nothing until it is sent its configuration. host-local's own files: host_local.
"""

from __future__ import annotations

import posix
from time import monotonic

from ..cni.spec import FAILED, INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT, IO_FAILURE, CniError
from ..deadline import seconds_left
from ..fast_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.attachment import Attachment
    from ..cni.netconf import NetConf

NO_ATTACHMENT = {"CNI_CONTAINERID": "none", "CNI_IFNAME": "none", "CNI_NETNS": "none"}
"""For STATUS and GC, which are about no attachment: plugins older than these verbs check the names before the verb."""

_TIMEOUT_SECONDS = 20.0
"""Where no call of the runtime has begun."""
_LONGEST_ANSWER = 1 << 20
"""Bytes."""
_OLD_VERBS = ("ADD", "DEL", "CHECK")
_LATEST_VERSION = "1.0.0"
"""The newest version that is asked for with _OLD_VERBS: distributions have older plugins, and 1.1.0 changed nothing in
these verbs."""
_SIGKILL = 9
_S_IFREG, _S_IFMT = 0o100000, 0o170000
"""linux/stat.h"""


class IpamRefusedError(CniError):
    """The IPAM plugin has answered with an error: of an ADD, it has reserved nothing."""


def find_plugin(name: str, path: str) -> str:
    """Return the first regular file of this name in ``path``, a list as in CNI_PATH. Raises CniError."""
    for directory in path.split(":"):
        candidate = f"{directory}/{name}"
        try:
            if directory and posix.stat(candidate).st_mode & _S_IFMT == _S_IFREG:
                return candidate
        except OSError:
            continue
    raise CniError(
        INVALID_CONFIG,
        f"the IPAM plugin {name!r} is not in CNI_PATH {path!r}; install it: host-local is in the package "
        "containernetworking-plugins",
    )


def is_too_old(error: CniError) -> bool:
    """Return whether an IPAM plugin has answered that it does not know STATUS or GC, or their version, CNI 1.1.0."""
    return error.code in (INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT)


def start_ipam(command: str, attachment: Attachment, conf: NetConf, cni_path: str, netns: str = "") -> IpamCall:
    """Start the network's IPAM plugin for an attachment and send it its configuration. Raises CniError."""
    ipam = prepare_ipam(command, attachment, conf, cni_path, netns)
    ipam.send_config()
    return ipam


def prepare_ipam(command: str, attachment: Attachment, conf: NetConf, cni_path: str, netns: str = "") -> IpamCall:
    """Start the network's IPAM plugin for an attachment, without sending it its configuration. Raises CniError."""
    variables = {"CNI_CONTAINERID": attachment.container_id, "CNI_IFNAME": attachment.ifname, "CNI_NETNS": netns}
    arguments = posix.environ.get(b"CNI_ARGS", b"").decode("utf-8", "surrogateescape")
    config, variables["CNI_ARGS"] = _with_one_request(conf.raw, arguments)
    if command == "DEL" and arguments and "IgnoreUnknown=" not in arguments:
        # An argument that makes an ADD fail must not keep the pod from being removed.
        variables["CNI_ARGS"] = f"IgnoreUnknown=1;{variables['CNI_ARGS']}".rstrip(";")
    return IpamCall(command, conf.ipam_type, cni_path, config, variables)


def _with_one_request(raw: dict[str, Any], arguments: str) -> tuple[dict[str, Any], str]:
    """Return configuration and CNI_ARGS with the addresses that the pod asks for in one place alone.

    ``runtimeConfig`` ranks over ``args.cni``, and that over CNI_ARGS (CONVENTIONS.md); host-local would reserve the
    addresses of all three.
    """
    args = raw.get("args")
    cni_args = args.get("cni") if isinstance(args, dict) else None
    is_in_runtime_config = bool((raw.get("runtimeConfig") or {}).get("ips"))
    if not is_in_runtime_config and not (isinstance(cni_args, dict) and cni_args.get("ips")):
        return raw, arguments
    if is_in_runtime_config and isinstance(args, dict) and isinstance(cni_args, dict):
        others = {key: value for key, value in cni_args.items() if key != "ips"}
        raw = {**raw, "args": {**args, "cni": others}}
    return raw, ";".join(pair for pair in arguments.split(";") if not pair.startswith("IP="))


class IpamCall:
    """One process of an IPAM plugin: ``send_config``, then ``result``; ``close`` must be called at last."""

    def __init__(self, command: str, name: str, path: str, config: dict[str, Any], variables: dict[str, str]) -> None:
        """Start the process; it inherits our environment, and ``variables`` on top of it. Raises CniError."""
        self._what = f"{name} {command}"
        self._is_over = False
        if command in _OLD_VERBS and config.get("cniVersion", "") > _LATEST_VERSION:
            config = {**config, "cniVersion": _LATEST_VERSION}
        self._config = config
        program = find_plugin(name, path)
        environment = {**posix.environ, b"CNI_COMMAND": command.encode(), b"CNI_PATH": _encode(path)}
        environment.update((key.encode(), _encode(value)) for key, value in variables.items())
        child_input, self._input = posix.pipe()
        self._output, child_output = posix.pipe()
        try:
            self._process = posix.posix_spawn(
                program,
                [name],
                environment,
                file_actions=[(posix.POSIX_SPAWN_DUP2, child_input, 0), (posix.POSIX_SPAWN_DUP2, child_output, 1)],
                # A process group of its own, so that the processes that it starts can be killed with it.
                setpgroup=0,
            )
        except OSError as error:
            posix.close(self._input)
            posix.close(self._output)
            raise CniError(IO_FAILURE, f"cannot run the IPAM plugin {program}: {error.strerror}") from None
        finally:
            posix.close(child_input)
            posix.close(child_output)
        self._deadline = self._limit = 0.0
        self._run_as_batch_job()

    def send_config(self) -> None:
        """Send the configuration: the plugin does its work from now on, and has the rest of the call for it."""
        self._limit = seconds_left(_TIMEOUT_SECONDS)
        self._deadline = monotonic() + self._limit
        descriptor, self._input = self._input, -1
        try:
            self._write(descriptor, dumps(self._config).encode())
        finally:
            posix.close(descriptor)

    def close(self) -> None:
        """End the process: wait for it if it has its configuration, kill it otherwise, as it has done nothing yet."""
        if self._input >= 0:
            self._is_over = True
            posix.killpg(self._process, _SIGKILL)
            posix.waitpid(self._process, 0)
            posix.close(self._input)
            posix.close(self._output)
            self._input = -1
        elif not self._is_over:
            self.result_or_error()

    def result(self) -> dict[str, Any]:
        """Wait for the plugin and return its result, ``{}`` for verbs without one.

        Raises CniError with the plugin's own code and message.
        """
        self._is_over = True
        output, is_in_time = self._read()
        if not is_in_time:
            posix.killpg(self._process, _SIGKILL)
        _pid, status = posix.waitpid(self._process, 0)
        if len(output) > _LONGEST_ANSWER:
            raise CniError(FAILED, f"the IPAM plugin's {self._what} answered more than {_LONGEST_ANSWER} bytes")
        if not is_in_time:
            raise CniError(FAILED, f"the IPAM plugin's {self._what} did not end within {self._limit:.3g} s")
        try:
            answer = loads(output.decode()) if output.strip() else {}
        except ValueError:
            answer = {}
        if status != 0:
            if isinstance(answer, dict) and answer.get("msg"):
                code = answer.get("code")
                code = code if isinstance(code, int) and code > 0 else FAILED
                raise IpamRefusedError(code, f"{self._what}: {answer['msg']}", str(answer.get("details", "")))
            raise IpamRefusedError(FAILED, f"{self._what} ended with status {posix.waitstatus_to_exitcode(status)}")
        return answer if isinstance(answer, dict) else {}

    def result_or_error(self) -> CniError | None:
        """Wait for the plugin; return its error, or None if it has succeeded."""
        try:
            self.result()
        except CniError as error:
            return error
        return None

    def _run_as_batch_job(self) -> None:
        """Let the plugin's process not interrupt ours: SCHED_BATCH of sched(7).

        Go's runtime wakes a thread 12 times a millisecond, which would interrupt every process of this CPU each time.
        """
        try:
            posix.sched_setscheduler(self._process, posix.SCHED_BATCH, posix.sched_param(0))
        except OSError:
            return  # The process has ended, or we may not; nothing depends on it.

    def _write(self, descriptor: int, text: bytes) -> None:
        """Write until all is read, the plugin ends or its time is over; how it went is told by ``result``."""
        # stage: read while IPAM's process starts.
        from select import POLLOUT, poll

        posix.set_blocking(descriptor, False)
        poller = poll()
        poller.register(descriptor, POLLOUT)
        while text and (remaining := self._deadline - monotonic()) > 0:
            try:
                text = text[posix.write(descriptor, text) :]
            except BrokenPipeError:
                return
            except BlockingIOError:
                poller.poll(remaining * 1000)

    def _read(self) -> tuple[bytes, bool]:
        """Return what the plugin has written, and whether it has ended its output in time."""
        # stage: the same.
        from select import POLLIN, poll

        poller = poll()
        poller.register(self._output, POLLIN)
        output = b""
        try:
            while (remaining := self._deadline - monotonic()) > 0:
                if poller.poll(remaining * 1000):
                    block = posix.read(self._output, 1 << 16)
                    if not block:
                        return output, True
                    output += block
                    if len(output) > _LONGEST_ANSWER:
                        return output, False
            return output, False
        finally:
            posix.close(self._output)


def _encode(value: str) -> bytes:
    """Return the bytes that the environment had before it was decoded."""
    return value.encode("utf-8", "surrogateescape")
