# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A process that tests have started made deaf: alive, while what is sent to it waits."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path


def pause(process: subprocess.Popen[bytes]) -> None:
    """Returns once each of its threads has stopped: the signal takes a moment to reach them all."""
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while any(state != "T" for state in _thread_states(process.pid)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {process.pid} has not stopped")
        time.sleep(0.001)


def resume(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)


def _thread_states(pid: int) -> list[str]:
    """As the kernel has them (proc_pid_stat(5))."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [(task / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] for task in tasks]
