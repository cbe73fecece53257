# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Run the work of an Ansible module, and turn its result or its error into the module's output.

The library does not import Ansible: AnsibleModule is described here by what the modules use of it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from .errors import EvioError


class Module(Protocol):
    """The part of ``ansible.module_utils.basic.AnsibleModule`` that the modules of this collection use."""

    params: dict[str, Any]
    check_mode: bool
    no_log_values: set[str]
    """Ansible replaces these strings by asterisks in everything that the module returns."""

    def warn(self, warning: str) -> None:
        """Add a warning to the module's output."""

    def exit_json(self, **result: Any) -> NoReturn:
        """End the process: the task was done."""

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        """End the process: the task has failed."""


class Task(Protocol):
    """The work of one module: reads the parameters and the host when it is made, and acts in run()."""

    def run(self) -> dict[str, Any]:
        """Do the work unless the module is in check mode, and return the module's result. Raises EvioError."""


class ModuleError(EvioError):
    """A failure that returns more than its message; ``result`` goes into the module's output."""

    def __init__(self, message: str, **result: Any) -> None:
        super().__init__(message)
        self.result = result


def run_module(module: Module, task: Callable[[Any], Task]) -> NoReturn:
    """Run ``task(module).run()`` and end the process with its result.

    An EvioError fails the module with its message alone. Any other exception is a bug: the message names it, and the
    result has its traceback.
    """
    try:
        result = task(module).run()
    except ModuleError as error:
        module.fail_json(msg=str(error), **error.result)
    except EvioError as error:
        module.fail_json(msg=str(error))
    except Exception as error:
        module.fail_json(
            msg=f"unexpected {type(error).__name__}: {error}; this is a bug of the module, see the traceback",
            traceback=traceback.format_exc().splitlines(),
        )
    module.exit_json(**result)
