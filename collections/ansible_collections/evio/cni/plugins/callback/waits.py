# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Callback that says, while a task takes long, for how long it has run and which hosts are not done."""

from __future__ import annotations

DOCUMENTATION = r"""
name: waits
type: notification
short_description: Say what a run waits for while a task takes long
version_added: 0.1.0
author:
  - The evio.cni authors (@evio-cni)
description:
  - Ansible shows nothing between a task's name and its results. After 10 seconds this plugin prints a line below the
    task's name, with the seconds since its start and the hosts that are not done; then every 10 seconds, and after a
    minute every 30 seconds.
  - It works beside any callback for the standard output, and says nothing of tasks that end within 10 seconds.
  - Enable it in C(ansible.cfg) with C(callbacks_enabled = evio.cni.waits).
options: {}
"""

import threading
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

from ..plugin_utils.waits import RunningTask

_LOOK_SECONDS = 0.5


class CallbackModule(CallbackBase):
    """Ansible calls the methods in its main process; a thread of its own looks at the clock."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "evio.cni.waits"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._task: RunningTask | None = None
        self._thread: threading.Thread | None = None
        self._end = threading.Event()

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._end.clear()
        self._thread = threading.Thread(target=self._watch, name="evio.cni.waits", daemon=True)
        self._thread.start()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._start()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._start()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        with self._lock:
            self._task = None

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        with self._lock:
            if self._task is not None:
                self._task.begin(host.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        self._done(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._done(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._done(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._done(result)

    def _start(self) -> None:
        with self._lock:
            self._task = RunningTask(time.monotonic())

    def _done(self, result: Any) -> None:
        with self._lock:
            if self._task is not None:
                self._task.end(result._host.get_name())

    def _watch(self) -> None:
        while not self._end.wait(_LOOK_SECONDS):
            with self._lock:
                line = self._task.line(time.monotonic()) if self._task is not None else None
            if line is not None:
                self._display.display(line)
