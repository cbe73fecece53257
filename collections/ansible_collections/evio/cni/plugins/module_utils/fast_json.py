# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read and write JSON without importing ``json``, which takes longer than all kernel work of a plugin's call.

It uses the C scanner and encoder behind ``json`` (module ``_json``), and ``json`` itself if an interpreter lacks them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Context:
    """The attributes of a decoder that the scanner reads, with the defaults of ``json.JSONDecoder``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012  (the scanner's interface)

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"{name} is no JSON")


def loads(text: str) -> Any:
    """Return the value of one JSON document. Raises ValueError for anything else."""
    try:
        return _scan(text)
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None


def first_of(text: bytes) -> tuple[Any, bytes]:
    """Return the first of several documents in a row, and the rest of the bytes.

    Return None and all bytes if the first document is incomplete or broken.
    """
    try:
        characters = text.decode()
        value, end = _first(characters)
    except (StopIteration, SystemError, ValueError):
        return None, text
    return value, characters[end:].encode()


def dumps(value: Any) -> str:
    """Return the value as a JSON document in ASCII, without white space. Raises ValueError for a type JSON lacks."""
    try:
        from _json import encode_basestring_ascii, make_encoder

        encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False)
        return "".join(encode(value, 0))
    except (ImportError, TypeError):
        import json  # Rare: only for an interpreter without these C functions.

        return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_refuse)


def _scan(text: str) -> Any:
    stripped = text.strip(" \t\n\r")
    try:
        value, end = _first(stripped)
    except (StopIteration, SystemError):
        end = -1  # The scanner can raise its own error only if json is loaded; json raises it below.
    if end != len(stripped):
        import json  # Rare: only for broken documents.

        return json.loads(text, parse_constant=_Context.parse_constant)
    return value


def _first(text: str) -> tuple[Any, int]:
    """Return the value at the start of the text, and its end. Raises StopIteration, SystemError or ValueError."""
    context: Any = _Context
    try:
        from _json import make_scanner
    except ImportError:
        import json  # Rare: only for an interpreter without this C function.

        return json.JSONDecoder(parse_constant=context.parse_constant).raw_decode(text)
    value, end = make_scanner(context)(text, 0)
    return value, end


def _refuse(value: object) -> object:
    raise ValueError(f"{type(value).__name__} is no JSON type")
