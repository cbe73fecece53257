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
    try:
        from _json import make_scanner
    except ImportError:
        return _loads_slowly(text)
    stripped = text.strip(" \t\n\r")
    context: Any = _Context
    try:
        value, end = make_scanner(context)(stripped, 0)
    except (StopIteration, SystemError):
        end = -1  # The scanner cannot raise its own error unless json is loaded; json tells it.
    if end != len(stripped):
        return _loads_slowly(text)
    return value


def _loads_slowly(text: str) -> Any:
    import json

    return json.loads(text, parse_constant=_Context.parse_constant)


def _refuse(value: object) -> object:
    raise ValueError(f"{type(value).__name__} is no JSON type")
