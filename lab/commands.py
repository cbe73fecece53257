"""Run other programs with a deadline; errors say which program failed and what it printed."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

NETNS_DIR = "/run/netns"

REPORT_INTERVAL = 10.0
"""Seconds between two lines that say how far something long is."""
_LAST_LINES = 20
"""Lines of a log that an error shows."""


class LabError(Exception):
    """Something that the lab could not do, in words for the person who runs it."""


def run(*argv: str, stdin: str | None = None, timeout: float = 30.0) -> str:
    """Run a program to its end and return its stdout; timeout in seconds. Raises LabError unless it exits with 0."""
    done = attempt(*argv, stdin=stdin, timeout=timeout)
    if done.returncode != 0:
        output = (done.stderr or done.stdout).strip()
        raise LabError(f"{shlex.join(argv)} failed (exit {done.returncode}): {output}")
    return done.stdout


def attempt(*argv: str, stdin: str | None = None, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it did, whatever its exit code; timeout in seconds.

    Raises LabError if the program is missing or does not end in time.
    """
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
        raise _not_installed(argv) from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{shlex.join(argv)} did not end within {timeout:g} s") from error


def run_reported(what: str, argv: Sequence[str], log: Path, *, stdin: str, timeout: float) -> None:
    """Run a program that takes long, with its output in a log; print every 10 s for how long, and the log's last line.

    The log is removed unless the program fails. Raises LabError with the end of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("w") as output:
        try:
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=output, stderr=output, text=True)
        except FileNotFoundError as error:
            raise _not_installed(argv) from error
        try:
            given: str | None = stdin
            while process.poll() is None:
                try:
                    process.communicate(given, timeout=REPORT_INTERVAL)
                except subprocess.TimeoutExpired:
                    seconds = time.monotonic() - started
                    if seconds > timeout:
                        raise LabError(f"{what} did not end within {timeout:g} s; its output is in {log}") from None
                    print(f"   {what}, {seconds:.0f} s: {_last_lines(log, 1)[:80]}", flush=True)
                given = None
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        end = _last_lines(log, _LAST_LINES)
        raise LabError(f"{what} failed (exit {process.returncode}); the end of {log}:\n{end}")
    log.unlink()


def in_netns(netns: str, argv: Sequence[str]) -> list[str]:
    """Return the command line that runs argv in a named network namespace, but in this process's other namespaces."""
    return ["nsenter", f"--net={NETNS_DIR}/{netns}", *argv]


def _not_installed(argv: Sequence[str]) -> LabError:
    return LabError(f"{argv[0]} is not installed: run setup/machine")


def _last_lines(log: Path, count: int) -> str:
    """Return the last lines that are not empty; a carriage return ends a line, as progress bars have it."""
    lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()
    return "\n".join([line for line in lines if line.strip()][-count:])
