# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program ``evio``: the CNI plugin when a runtime calls it, the operator's tool on a node when a person does.

This file reads standard input and the environment, chooses the verb, and writes the result or the error. What a verb
does is in the library's ``plugin`` package; the operator's commands are in ``commands``.
"""

from __future__ import annotations

import gc
import posix
import sys
from time import monotonic, process_time

from evio_cni.cni.netconf import NetConf, conf_for_removal, decode, version_of
from evio_cni.cni.spec import FAILED, SUPPORTED_VERSIONS, Call, CniError, check_version, parse_call, version_result
from evio_cni.errors import EvioError
from evio_cni.fast_json import dumps
from evio_cni.paths import STATE_DIR
from evio_cni.state.event_log import note_event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STDIN_WAIT_MS = 200
"""How long to wait for a configuration that is not needed; libcni writes it at once."""


def main() -> None:
    """Run the program. Never returns: ending the process without the interpreter's clean-up saves a millisecond."""
    if _is_called_by_runtime():
        # The process ends before garbage could matter.
        gc.disable()
        posix._exit(_serve_and_note())
    from evio_program.commands import run

    posix._exit(run())


def _is_called_by_runtime() -> bool:
    """Tell by CNI_COMMAND, or by any variable CNI_* if there are no arguments, as people give them."""
    return b"CNI_COMMAND" in posix.environ or (len(sys.argv) == 1 and any(one[:4] == b"CNI_" for one in posix.environ))


def _serve_and_note() -> int:
    """Serve one call of a container runtime; return the exit status.

    For ``evio metrics``, ADD and DEL leave behind how long they took, and their error code. The time that the
    interpreter took to start is part of it, as the CPU time of the process until now.
    """
    begun = monotonic() - process_time()
    reply = _Reply()
    status = _serve_runtime(reply)
    verb = posix.environ.get(b"CNI_COMMAND")
    if verb in (b"ADD", b"DEL"):
        note_event(reply.state_dir, verb.decode(), int((monotonic() - begun) * 1e6), reply.code)
    return status


def _serve_runtime(reply: _Reply) -> int:
    """Serve one call; return the exit status.

    At most one JSON object is written to standard output, the result or the error (SPEC.md section 2).
    """
    try:
        result = _run_verb(reply)
    except EvioError as error:
        # Only a failed call needs the codes.
        from evio_cni.plugin.error_codes import cni_error

        return reply.error(cni_error(error))
    except Exception as error:
        import traceback

        details = traceback.format_exc()
        _write(2, details)
        return reply.error(CniError(FAILED, f"unexpected {type(error).__name__}: {error}", details))
    return reply.result(result)


class _Reply:
    """What is written to standard output, in the specification's version that the configuration asks for."""

    def __init__(self) -> None:
        self.cni_version = "1.0.0"
        """For errors that happen before the configuration's version is known."""
        self.state_dir = STATE_DIR
        """The network's stateDir; the default before its configuration is known."""
        self.code = 0
        """The CNI error code that was written; 0 without an error."""

    def result(self, result: dict[str, Any] | None) -> int:
        """Write the result, if the verb has one; return the exit status."""
        if result is not None:
            _write(1, dumps(result) + "\n")
        return 0

    def error(self, error: CniError) -> int:
        """Write an error, for the runtime and into the journal; return the exit status."""
        self.code = error.code
        _write(1, dumps(error.to_json(self.cni_version)) + "\n")
        # Only a failed call needs it.
        from evio_cni.plugin.error_log import log_error

        log_error({_decode(key): _decode(value) for key, value in posix.environ.items()}, error)
        return 1


def _run_verb(reply: _Reply) -> dict[str, Any] | None:
    """Run the verb that the environment names; return its result, None for verbs without one. Raises EvioError."""
    try:
        call = parse_call({_decode(key): _decode(value) for key, value in posix.environ.items()})
    except CniError:
        reply.cni_version = _version_on_stdin() or reply.cni_version
        raise
    if call.command == "VERSION":
        return version_result(_version_on_stdin() or SUPPORTED_VERSIONS[-1])
    raw = decode(_read_stdin())
    state_dir = raw.get("stateDir")
    # Before the configuration is checked: a call that is refused counts, too.
    if isinstance(state_dir, str) and state_dir[:1] == "/":
        reply.state_dir = state_dir
    if call.command == "DEL":
        removal = conf_for_removal(raw)
        if removal is None:
            return None  # No ADD has accepted it: there is nothing to remove.
        if removal.cni_version in SUPPORTED_VERSIONS:
            reply.cni_version = removal.cni_version
        # stage
        from evio_cni.plugin.delete import cmd_del

        cmd_del(call, removal)
        return None
    reply.cni_version = version_of(raw)
    check_version(call.command, reply.cni_version)
    conf = NetConf(raw)
    if call.command == "ADD":
        # stage
        from evio_cni.plugin.add import cmd_add

        result = cmd_add(call, conf)
        # Loaded already, with ADD's last stage.
        from evio_cni.cni.result import shape_result

        return shape_result(result, reply.cni_version)
    _run_query(call, conf)
    return None


def _run_query(call: Call, conf: NetConf) -> None:
    """Run CHECK, STATUS or GC. Raises EvioError."""
    # stage: each verb's own.
    if call.command == "CHECK":
        from evio_cni.plugin.check import cmd_check

        cmd_check(call, conf)
    elif call.command == "STATUS":
        from evio_cni.plugin.status import cmd_status

        cmd_status(call, conf)
    else:
        from evio_cni.plugin.gc import cmd_gc

        cmd_gc(call, conf)


def _version_on_stdin() -> str | None:
    """Return the cniVersion of a configuration that need not be there.

    Some runtimes send no configuration with VERSION and leave the pipe open, so the end of the input is not awaited.
    """
    # Rare.
    from select import POLLIN, poll

    poller = poll()
    poller.register(0, POLLIN)
    text = b""
    try:
        while poller.poll(_STDIN_WAIT_MS) and (block := posix.read(0, 1 << 16)):
            text += block
        version = decode(text).get("cniVersion")
    except (CniError, OSError):
        return None
    return version if isinstance(version, str) and version else None


def _read_stdin() -> bytes:
    text = b""
    while block := posix.read(0, 1 << 16):
        text += block
    return text


def _write(descriptor: int, text: str) -> None:
    data = text.encode()
    while data:
        data = data[posix.write(descriptor, data) :]


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
