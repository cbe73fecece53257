# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Delegation to an IPAM plugin (SPEC.md section 4): found in CNI_PATH, run with our environment and config.

The process is started first and awaited last, so that the kernel's work goes on beside it; it does nothing before it is
told its configuration.
"""

from __future__ import annotations

import posix
import select
from time import monotonic

from ..cni.spec import FAILED, INCOMPATIBLE_VERSION, INVALID_CONFIG, INVALID_ENVIRONMENT, IO_FAILURE, CniError
from ..fast_json import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cni.attachment import Attachment
    from ..cni.netconf import NetConf

_TIMEOUT_SECONDS = 20.0
_OLD_VERBS = ("ADD", "DEL", "CHECK")
_LATEST_VERSION = "1.0.0"
"""What IPAM plugins are asked these in at most: distributions have older ones, and 1.1.0 changed nothing of them."""
_SIGKILL = 9
_REGULAR_FILE, _KIND = 0o100000, 0o170000


def find_plugin(name: str, path: str) -> str:
    """The plugin's file: the first of CNI_PATH. Raises CniError."""
    for directory in path.split(":"):
        candidate = f"{directory}/{name}"
        try:
            if directory and posix.stat(candidate).st_mode & _KIND == _REGULAR_FILE:
                return candidate
        except OSError:
            continue
    raise CniError(INVALID_CONFIG, f"the IPAM plugin {name!r} is not in CNI_PATH {path!r}")


NO_ATTACHMENT = {"CNI_CONTAINERID": "none", "CNI_IFNAME": "none", "CNI_NETNS": "none"}
"""For STATUS and GC, which speak of none: plugins of before these verbs look at the names before the verb."""


def is_too_old(error: CniError) -> bool:
    """Whether an IPAM plugin has answered that it knows no STATUS or GC, or not CNI 1.1.0 that brought them."""
    return error.code in (INCOMPATIBLE_VERSION, INVALID_ENVIRONMENT)


def start_ipam(command: str, attachment: Attachment, conf: NetConf, cni_path: str, netns: str = "") -> IpamCall:
    """Ask the network's IPAM plugin about the attachment. Raises CniError."""
    ipam = prepare_ipam(command, attachment, conf, cni_path, netns)
    ipam.send_config()
    return ipam


def prepare_ipam(command: str, attachment: Attachment, conf: NetConf, cni_path: str, netns: str = "") -> IpamCall:
    """As ``start_ipam``, but for its telling it. Raises CniError."""
    variables = {"CNI_CONTAINERID": attachment.container_id, "CNI_IFNAME": attachment.ifname, "CNI_NETNS": netns}
    arguments = posix.environ.get(b"CNI_ARGS", b"").decode("utf-8", "surrogateescape")
    config, variables["CNI_ARGS"] = _asked_once(conf.raw, arguments)
    if command == "DEL" and arguments and "IgnoreUnknown=" not in arguments:
        # What an ADD may refuse must not keep a pod from being removed.
        variables["CNI_ARGS"] = f"IgnoreUnknown=1;{variables['CNI_ARGS']}".rstrip(";")
    return IpamCall(command, conf.ipam_type, cni_path, config, variables)


def _asked_once(raw: dict[str, Any], arguments: str) -> tuple[dict[str, Any], str]:
    """Configuration and CNI_ARGS with the pod's wanted addresses in the place that ranks highest alone.

    ``runtimeConfig`` over ``args.cni`` over CNI_ARGS (CONVENTIONS.md); host-local would give it those of all three.
    """
    asked = raw.get("args")
    wanted = asked.get("cni") if isinstance(asked, dict) else None
    by_runtime = bool((raw.get("runtimeConfig") or {}).get("ips"))
    if not by_runtime and not (isinstance(wanted, dict) and wanted.get("ips")):
        return raw, arguments
    if by_runtime and isinstance(asked, dict) and isinstance(wanted, dict):
        others = {key: value for key, value in wanted.items() if key != "ips"}
        raw = {**raw, "args": {**asked, "cni": others}}
    return raw, ";".join(pair for pair in arguments.split(";") if not pair.startswith("IP="))


class IpamCall:
    """One run of an IPAM plugin, to be told its configuration and then finished; ``end`` must be called at last."""

    def __init__(self, command: str, name: str, path: str, config: dict[str, Any], call: dict[str, str]) -> None:
        """Start it. ``call`` has the variables CNI_* that the plugin shall see besides our environment."""
        self._what = f"{name} {command}"
        self._is_over = False
        if command in _OLD_VERBS and config.get("cniVersion", "") > _LATEST_VERSION:
            config = {**config, "cniVersion": _LATEST_VERSION}
        self._config = config
        program = find_plugin(name, path)
        environment = {**posix.environ, b"CNI_COMMAND": command.encode(), b"CNI_PATH": _encode(path)}
        environment.update((key.encode(), _encode(value)) for key, value in call.items())
        theirs_in, ours_in = posix.pipe()
        ours_out, theirs_out = posix.pipe()
        try:
            self._process = posix.posix_spawn(
                program,
                [name],
                environment,
                file_actions=[(posix.POSIX_SPAWN_DUP2, theirs_in, 0), (posix.POSIX_SPAWN_DUP2, theirs_out, 1)],
                # Of its own, so that what it has started can be ended with it.
                setpgroup=0,
            )
        except OSError as error:
            posix.close(ours_in)
            posix.close(ours_out)
            raise CniError(IO_FAILURE, f"cannot run the IPAM plugin {program}: {error.strerror}") from None
        finally:
            posix.close(theirs_in)
            posix.close(theirs_out)
        self._input, self._output = ours_in, ours_out
        self._deadline = 0.0
        self._let_others_go_first()

    def send_config(self) -> None:
        """Let it do its work, for which it has so many seconds from now on."""
        self._deadline = monotonic() + _TIMEOUT_SECONDS
        descriptor, self._input = self._input, -1
        try:
            self._write(descriptor, dumps(self._config).encode())
        finally:
            posix.close(descriptor)

    def close(self) -> None:
        """Nothing of it is left then: it is awaited if it was told, and else has done nothing."""
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
        """Its result; an empty one for verbs that have none. Raises CniError with its own code and words."""
        self._is_over = True
        output, in_time = self._read()
        if not in_time:
            posix.killpg(self._process, _SIGKILL)
        _pid, status = posix.waitpid(self._process, 0)
        if not in_time:
            raise CniError(FAILED, f"the IPAM plugin's {self._what} did not end within {_TIMEOUT_SECONDS:g} s")
        try:
            answer = loads(output.decode()) if output.strip() else {}
        except ValueError:
            answer = {}
        if status != 0:
            if isinstance(answer, dict) and answer.get("msg"):
                code = answer.get("code")
                code = code if isinstance(code, int) and code > 0 else FAILED
                raise CniError(code, f"{self._what}: {answer['msg']}", str(answer.get("details", "")))
            raise CniError(FAILED, f"{self._what} ended with status {posix.waitstatus_to_exitcode(status)}")
        return answer if isinstance(answer, dict) else {}

    def result_or_error(self) -> CniError | None:
        """As ``finish``; what went wrong is returned."""
        try:
            self.result()
        except CniError as error:
            return error
        return None

    def _let_others_go_first(self) -> None:
        """Go's runtime wakes a thread 12 times a millisecond for as long as it lives, which would interrupt those that
        work beside it: as a batch job (sched(7)) it gets its share without interrupting anybody.
        """
        try:
            posix.sched_setscheduler(self._process, posix.SCHED_BATCH, posix.sched_param(0))
        except OSError:
            return  # It is quicker, or not ours to say; nothing depends on it.

    def _write(self, descriptor: int, text: bytes) -> None:
        """What it has not read when it ends, or when its time is over, is lost; ``finish`` tells how it went."""
        posix.set_blocking(descriptor, False)
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while text and (remaining := self._deadline - monotonic()) > 0:
            try:
                text = text[posix.write(descriptor, text) :]
            except BrokenPipeError:
                return
            except BlockingIOError:
                poll.poll(remaining * 1000)

    def _read(self) -> tuple[bytes, bool]:
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        output = b""
        try:
            while (remaining := self._deadline - monotonic()) > 0:
                if poll.poll(remaining * 1000):
                    block = posix.read(self._output, 1 << 16)
                    if not block:
                        return output, True
                    output += block
            return output, False
        finally:
            posix.close(self._output)


def _encode(value: str) -> bytes:
    """The environment's bytes, as they came."""
    return value.encode("utf-8", "surrogateescape")
