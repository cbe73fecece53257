# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The runner of the modules: a result is returned, our own errors are told as they are, bugs with their traceback."""

from __future__ import annotations

from typing import Any, NoReturn

import pytest
from ansible_collections.evio.cni.plugins.module_utils.errors import EvioError
from ansible_collections.evio.cni.plugins.module_utils.module_runner import ModuleError, run_module


class Ended(Exception):  # noqa: N818  (stands for the process's end)
    def __init__(self, result: dict[str, Any]) -> None:
        self.result = result


class StandInModule:
    """AnsibleModule's methods, each with an exception in place of the process's end."""

    check_mode = False

    def __init__(self, **params: Any) -> None:
        self.params = params
        self.no_log_values: set[str] = set()

    def warn(self, warning: str) -> None:
        raise AssertionError(warning)

    def exit_json(self, **result: Any) -> NoReturn:
        raise Ended(result)

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        raise Ended({"failed": True, "msg": msg, **result})


class Task:
    def __init__(self, module: StandInModule) -> None:
        self.error = module.params.get("error")

    def run(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {"changed": True}


def result(**params: Any) -> dict[str, Any]:
    with pytest.raises(Ended) as ended:
        run_module(StandInModule(**params), Task)
    return ended.value.result


def test_result_is_returned() -> None:
    assert result() == {"changed": True}


def test_error_of_the_library_is_told_as_it_is() -> None:
    assert result(error=EvioError("no etcd")) == {"failed": True, "msg": "no etcd"}


def test_error_can_return_more_than_its_message() -> None:
    assert result(error=ModuleError("lost", lost={"node1": "why"})) == {
        "failed": True,
        "msg": "lost",
        "lost": {"node1": "why"},
    }


def test_bug_is_named_with_its_traceback() -> None:
    returned = result(error=KeyError("cidrs"))
    assert returned["msg"] == "unexpected KeyError: 'cidrs'; this is a bug of the module, see the traceback"
    assert returned["traceback"][0] == "Traceback (most recent call last):"
    assert "raise self.error" in "\n".join(returned["traceback"])
