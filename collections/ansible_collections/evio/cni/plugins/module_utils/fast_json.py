# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""JSON without importing ``json``, whose imports cost a plugin's call more than its kernel work.

The interpreter's own C scanner and encoder do the work; where an interpreter does not have them as expected, ``json``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Context:
    """What the scanner asks of a decoder: the defaults of ``json.JSONDecoder``."""

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
    """The value of one JSON document. Raises ValueError for anything else."""
    try:
        return _scan(text)
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None


def first_of(text: bytes) -> tuple[Any, bytes]:
    """The first of several documents that follow each other, and what comes behind it; None, all if it breaks off."""
    try:
        characters = text.decode()
        value, end = _first(characters)
    except (StopIteration, SystemError, ValueError):
        return None, text
    return value, characters[end:].encode()


def dumps(value: Any) -> str:
    """The document without white space, in ASCII."""
    try:
        from _json import encode_basestring_ascii, make_encoder

        encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False)
        return "".join(encode(value, 0))
    except (ImportError, TypeError):
        import json

        return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_refuse)


def _scan(text: str) -> Any:
    stripped = text.strip(" \t\n\r")
    try:
        value, end = _first(stripped)
    except (StopIteration, SystemError):
        end = -1  # The scanner cannot raise its own error unless json is loaded; json tells it.
    if end != len(stripped):
        import json

        return json.loads(text, parse_constant=_Context.parse_constant)
    return value


def _first(text: str) -> tuple[Any, int]:
    """The value that the text begins with, and where it ends. Raises StopIteration, SystemError or ValueError."""
    context: Any = _Context
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.JSONDecoder(parse_constant=context.parse_constant).raw_decode(text)
    value, end = make_scanner(context)(text, 0)
    return value, end


def _refuse(value: object) -> object:
    raise ValueError(f"{type(value).__name__} is no JSON type")
