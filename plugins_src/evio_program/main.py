# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program ``evio``: a CNI plugin where a runtime calls it, the operator's tool on a node where a person does.

Only standard output and the exit status are this file's subject; what a verb does is the library's.
"""

from __future__ import annotations

import gc
import posix
import select
import sys

from evio_cni.cni.netconf import NetConf, conf_for_removal, decode, version_of
from evio_cni.cni.spec import FAILED, SUPPORTED_VERSIONS, CniError, check_version, parse_call, version_result
from evio_cni.errors import EvioError
from evio_cni.fast_json import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PATIENCE_MS = 200
"""For a configuration that is not needed; libcni writes it at once."""


def main() -> None:
    """Never returns: leaving the interpreter as it is saves a millisecond of every call."""
    if _is_called_by_runtime():
        # Too short a life for anything to become garbage.
        gc.disable()
        posix._exit(_serve_runtime())
    from evio_program.commands import run

    posix._exit(run())


def _is_called_by_runtime() -> bool:
    """A person gives arguments; a runtime sets variables, even one that forgets to say what it wants."""
    return b"CNI_COMMAND" in posix.environ or (len(sys.argv) == 1 and any(one[:4] == b"CNI_" for one in posix.environ))


def _serve_runtime() -> int:
    """One call of a container runtime: one JSON object at most on standard output (SPEC.md section 2)."""
    spoken = _Spoken()
    try:
        result = _answer(spoken)
    except CniError as error:
        return _fail(error, spoken)
    except EvioError as error:
        return _fail(CniError(FAILED, str(error)), spoken)
    except Exception as error:
        import traceback

        details = traceback.format_exc()
        _write(2, details)
        return _fail(CniError(FAILED, f"unexpected {type(error).__name__}: {error}", details), spoken)
    if result is not None:
        _write(1, dumps(result) + "\n")
    return 0


class _Spoken:
    """The version in which the runtime speaks, once it is known: errors are told in it too."""

    cni_version = "1.0.0"


def _answer(spoken: _Spoken) -> dict[str, Any] | None:
    try:
        call = parse_call({_decode(key): _decode(value) for key, value in posix.environ.items()})
    except CniError:
        spoken.cni_version = _version_if_said() or spoken.cni_version
        raise
    if call.command == "VERSION":
        return version_result(_version_if_said() or SUPPORTED_VERSIONS[-1])
    raw = decode(_read_stdin())
    version = version_of(raw)
    spoken.cni_version = version
    check_version(call.command, version)
    if call.command == "DEL":
        from evio_cni.plugin.delete import cmd_del

        cmd_del(call, conf_for_removal(raw))
        return None
    conf = NetConf(raw)
    if call.command == "ADD":
        from evio_cni.plugin.add import cmd_add

        result = cmd_add(call, conf)
        from evio_cni.cni.result import shape_result

        return shape_result(result, version)
    if call.command == "CHECK":
        from evio_cni.plugin.check import cmd_check

        cmd_check(call, conf)
    elif call.command == "STATUS":
        from evio_cni.plugin.status import cmd_status

        cmd_status(call, conf)
    else:
        from evio_cni.plugin.gc import cmd_gc

        cmd_gc(call, conf)
    return None


def _version_if_said() -> str | None:
    """That of a configuration that need not be there: runtimes have been seen to send none, and to keep the pipe."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    text = b""
    try:
        while poll.poll(_PATIENCE_MS) and (block := posix.read(0, 1 << 16)):
            text += block
        version = decode(text).get("cniVersion")
    except (CniError, OSError):
        return None
    return version if isinstance(version, str) and version else None


def _fail(error: CniError, spoken: _Spoken) -> int:
    _write(1, dumps(error.to_json(spoken.cni_version)) + "\n")
    return 1


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
