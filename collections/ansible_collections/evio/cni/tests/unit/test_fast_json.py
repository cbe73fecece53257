# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""fast_json reads and writes every document as the standard library's json does."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.fast_json import dumps, loads
from hypothesis import given
from hypothesis import strategies as st

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
ALMOST = st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\u \t\n\r\x00\x0b', max_size=30)


@pytest.fixture(params=["quick", "without the interpreter's own"])
def _interpreter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "quick":
        monkeypatch.setitem(sys.modules, "_json", None)


@given(VALUES)
def test_dumps_writes_as_json_does_and_loads_reads_it_back(value: Any) -> None:
    text = dumps(value)
    assert text == json.dumps(value, separators=(",", ":"))
    assert loads(text) == value


@given(VALUES, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_document_is_read_as_json_reads_it(value: Any, indent: Any, ascii_only: bool) -> None:
    text = "\r\n " + json.dumps(value, indent=indent, ensure_ascii=ascii_only) + "\t\n"
    assert loads(text) == json.loads(text)


@given(ALMOST)
def test_text_that_json_refuses_is_refused(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            loads(text)
    else:
        assert loads(text) == expected


@pytest.mark.usefixtures("_interpreter")
@pytest.mark.parametrize("text", ["NaN", "-Infinity", "[Infinity]", '{"a": NaN}'])
def test_nan_and_infinity_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no JSON"):
        loads(text)


@pytest.mark.usefixtures("_interpreter")
@pytest.mark.parametrize("text", ["", "{", '{"a":1,}', "1 2", "\ufeff{}", "[1]\x00", '"\x01"', "'a'", "\x0b1"])
def test_broken_documents_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="line 1 column"):
        loads(text)


@pytest.mark.usefixtures("_interpreter")
def test_document_that_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        loads("[" * 100_000 + "]" * 100_000)


@pytest.mark.usefixtures("_interpreter")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {"a": {1}}])
def test_values_that_json_cannot_express_are_not_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON"):
        dumps(value)


@pytest.mark.usefixtures("_interpreter")
def test_output_is_the_same_with_and_without_the_c_encoder() -> None:
    value = {"a": [1, 2.5, None, True, "\u00e9\n"], "": {}}
    assert dumps(value) == '{"a":[1,2.5,null,true,"\\u00e9\\n"],"":{}}'
    assert loads(dumps(value)) == value
