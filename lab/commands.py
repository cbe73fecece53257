"""How the lab runs other programs: with a deadline, and with an error that says which one failed and what it said."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

NETNS_DIR = "/run/netns"


class LabError(Exception):
    """What could not be done, in words for the person at the keyboard."""


def run(*argv: str, stdin: str | None = None, timeout: float = 30.0) -> str:
    """Run a program to its end and return its stdout; timeout in seconds. Raises LabError unless it exits with 0."""
    done = attempt(*argv, stdin=stdin, timeout=timeout)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"{shlex.join(argv)} failed (exit {done.returncode}): {said}")
    return done.stdout


def attempt(*argv: str, stdin: str | None = None, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code. Raises LabError if it is missing or overruns its deadline."""
    try:
        return subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed: run setup/machine") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{shlex.join(argv)} did not end within {timeout:g} s") from error


def in_netns(netns: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs argv in a named network namespace, and in nothing else of it."""
    return ["nsenter", f"--net={NETNS_DIR}/{netns}", *argv]
