# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The program ``evio``: a CNI plugin where a runtime calls it, the operator's tool on a node where a person does.

Only standard output and the exit status are this file's subject; what a verb does is the library's.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Never returns: leaving the interpreter as it is saves a millisecond of every call."""
    if b"CNI_COMMAND" in posix.environ:
        posix._exit(_serve_runtime())
    from evio_program.commands import run

    posix._exit(run())


def _serve_runtime() -> int:
    """One call of a container runtime: one JSON object at most on standard output (SPEC.md section 2)."""
    from evio_cni.cni_protocol import FAILED, UNDECODABLE, CniError
    from evio_cni.errors import EvioError

    spoken = _Spoken()
    try:
        result = _answer(spoken)
    except CniError as error:
        return _fail(error, spoken)
    except EvioError as error:
        return _fail(CniError(FAILED, str(error)), spoken)
    except UnicodeDecodeError as error:
        return _fail(CniError(UNDECODABLE, "the configuration on standard input is no UTF-8", str(error)), spoken)
    except Exception as error:
        import traceback

        details = traceback.format_exc()
        _write(2, details)
        return _fail(CniError(FAILED, f"unexpected {type(error).__name__}: {error}", details), spoken)
    if result is not None:
        _write_json(result)
    return 0


class _Spoken:
    """The version in which the runtime speaks, once it is known: errors are told in it too."""

    cni_version = "1.0.0"


def _answer(spoken: _Spoken) -> dict[str, Any] | None:
    from evio_cni import cni_protocol

    call = cni_protocol.parse_call({_decode(key): _decode(value) for key, value in posix.environ.items()})
    if call.command == "VERSION":
        return cni_protocol.version_result(_asked_version())
    from evio_cni.netconf import parse_netconf

    text = _read_stdin()
    spoken.cni_version = _version_in(text) or spoken.cni_version
    conf = parse_netconf(text)
    cni_protocol.check_version(call.command, conf.cni_version)
    if call.command == "ADD":
        from evio_cni.attachment import add

        return cni_protocol.shape_result(add(call, conf), conf.cni_version)
    if call.command == "DEL":
        from evio_cni.detachment import delete

        delete(call, conf)
    elif call.command == "CHECK":
        from evio_cni.checking import check

        check(call, conf)
    elif call.command == "STATUS":
        from evio_cni.status import check_status

        check_status(call, conf)
    else:
        from evio_cni.collection import collect

        collect(call, conf)
    return None


def _asked_version() -> str:
    """VERSION answers without a configuration too: runtimes have been seen to send none."""
    from evio_cni.cni_protocol import SUPPORTED_VERSIONS

    return _version_in(_read_stdin()) or SUPPORTED_VERSIONS[-1]


def _version_in(text: str) -> str | None:
    from evio_cni.plain_json import loads

    try:
        version = loads(text).get("cniVersion")
    except (ValueError, AttributeError):
        return None
    return version if isinstance(version, str) else None


def _fail(error: Any, spoken: _Spoken) -> int:
    _write_json(error.to_json(spoken.cni_version))
    return 1


def _read_stdin() -> str:
    text = b""
    while block := posix.read(0, 1 << 16):
        text += block
    return text.decode()


def _write_json(value: dict[str, Any]) -> None:
    from evio_cni.plain_json import dumps

    _write(1, dumps(value) + "\n")


def _write(descriptor: int, text: str) -> None:
    data = text.encode()
    while data:
        data = data[posix.write(descriptor, data) :]


def _decode(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
