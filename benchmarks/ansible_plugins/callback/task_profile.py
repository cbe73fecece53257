# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Callback task_profile: writes what each task of a playbook costs, for playbook_bench.py.

The file of the environment variable TASK_PROFILE gets a JSON document: ``tasks``, a list of {name, wall, cpu} in
order (seconds; ``cpu`` is that of Ansible and its workers); ``hosts``, the number of task results of each host as the
play recap counts them: ok (with includes and changed), skipped, failed, rescued and ignored; ``changed``, how many of
them have changed something.
"""

from __future__ import annotations

DOCUMENTATION = r"""
name: task_profile
type: aggregate
short_description: Write what each task costs
description: Writes wall time, controller CPU time and numbers of results into the file of TASK_PROFILE.
"""

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

_COUNTS = ("ok", "skipped", "failures", "rescued", "ignored")


class CallbackModule(CallbackBase):
    """Note the clocks at the start of each task; a task ends where the next begins."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_profile"

    def __init__(self) -> None:
        super().__init__()
        self._starts: list[tuple[str, float, float]] = []

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._note(task.get_name())

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._note(task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._note("")
        tasks = [
            {"name": name, "wall": after[1] - wall, "cpu": after[2] - cpu}
            for (name, wall, cpu), after in zip(self._starts, self._starts[1:], strict=False)
        ]
        hosts = {host: sum(getattr(stats, count).get(host, 0) for count in _COUNTS) for host in stats.processed}
        changed = {host: stats.changed.get(host, 0) for host in stats.processed}
        Path(os.environ["TASK_PROFILE"]).write_text(json.dumps({"tasks": tasks, "hosts": hosts, "changed": changed}))

    def _note(self, name: str) -> None:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        self._starts.append((name, time.monotonic(), sum(usage.ru_utime + usage.ru_stime for usage in usages)))
