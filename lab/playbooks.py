"""Run a playbook as users do, with the inventory that the lab wrote of itself."""

from __future__ import annotations

import os
import re
import subprocess

from commands import LabError
from state import REPOSITORY, Lab


def run(lab: Lab, playbook: str, *arguments: str, timeout: float = 600) -> str:
    """Run playbooks/PLAYBOOK with these arguments, and return what it prints; ``timeout`` is in seconds.

    Raises LabError with the failed tasks' messages unless it exits with 0.
    """
    done = attempt(lab, playbook, *arguments, timeout=timeout)
    if done.returncode != 0:
        errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("[ERROR]")]
        raise LabError(f"{playbook} failed (exit {done.returncode}): {'; '.join(errors) or done.stdout[-2000:]}")
    return done.stdout


def changes(printed: str) -> int:
    """Return how many tasks have changed something, as the end of a run's output tells."""
    return sum(map(int, re.findall(r"changed=(\d+)", printed)))


def attempt(
    lab: Lab, playbook: str, *arguments: str, timeout: float = 600, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run playbooks/PLAYBOOK to its end and return what it did, whatever its exit code; ``timeout`` is in seconds.

    ``variables`` are those of the environment. Raises LabError if it does not end in time.
    """
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), **variables}
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(REPOSITORY / "collections")
    # Its words are looked for, and molecule asks for colours between them.
    environment["ANSIBLE_FORCE_COLOR"] = "false"
    program = str(REPOSITORY / ".venv/bin/ansible-playbook")
    command = [program, "-i", str(lab.inventory), f"playbooks/{playbook}", *arguments]
    try:
        return subprocess.run(
            command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{playbook} did not end within {timeout:g} s") from error
