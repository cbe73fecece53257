# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian's packages, downloaded by name into a cache outside the tree and unpacked there; nothing is installed.

For the programs of this directory that fill a cache: `kubernetes` and `kernel_vm`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO


def cache_directory(name: str) -> Path:
    """Return the directory of this name in the user's cache (XDG_CACHE_HOME)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "evio-cni" / name


def fill(directory: Path, title: str, is_filled: Callable[[Path], bool], build: Callable[[Steps, Path], None]) -> None:
    """Let ``build`` fill a new directory, and give it the name ``directory`` when it is whole; of two programs, one.

    ``title`` begins the lines that are printed. Raises SystemExit where a step fails; its output stays in a log.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.parent / f"{directory.name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_filled(directory):
            return
        work = directory.with_name(f"{directory.name}.work")
        shutil.rmtree(work, ignore_errors=True)
        (work / "out").mkdir(parents=True)
        log = work.with_suffix(".log")
        with open(log, "wb") as output:
            build(Steps(title, work, output, log), work / "out")
        shutil.rmtree(directory, ignore_errors=True)
        os.rename(work / "out", directory)
        shutil.rmtree(work)
        log.unlink()


class Steps:
    """Runs commands in the working directory, with their output in a log; says what it does every 10 seconds."""

    def __init__(self, title: str, work: Path, output: IO[bytes], log: Path) -> None:
        self.title = title
        self.work = work
        self._output = output
        self._log = log
        self._started = time.monotonic()
        self._said = ""

    def say(self, text: str) -> None:
        self._said = text
        print(f"== {self.title}: {text} ({time.monotonic() - self._started:.0f} s)", file=sys.stderr, flush=True)

    def run(self, *command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
        """Run a command to its end. Raises SystemExit with the end of the log if it fails."""
        process = subprocess.Popen(
            ["nice", "-n", "10", *map(str, command)],
            cwd=cwd or self.work,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        while True:
            try:
                status = process.wait(timeout=10)
                break
            except subprocess.TimeoutExpired:
                elapsed = time.monotonic() - self._started
                print(f"   {self._said}, {elapsed:.0f} s", file=sys.stderr, flush=True)
            except BaseException:
                process.terminate()
                raise
        if status:
            self.fail(f"{command[0]} failed")

    def output(self, *command: str | Path) -> str:
        """Run a short command and return its standard output. Raises SystemExit if it fails."""
        done = subprocess.run(
            list(map(str, command)), cwd=self.work, stdout=subprocess.PIPE, stderr=self._output, text=True, check=False
        )
        if done.returncode:
            self.fail(f"{command[0]} failed")
        return done.stdout

    def fail(self, reason: str) -> None:
        """Raise SystemExit with the end of the log."""
        lines = self._log.read_text(errors="replace").splitlines()[-20:]
        raise SystemExit("\n".join([*lines, f"{self.title}: {reason}; all output is in {self._log}"]))


class PrivateApt:
    """apt with package lists of its own: the machine's stay as they are. They name Debian's source packages too."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        directory = steps.work / "apt"
        for name in ("lists/partial", "cache/archives/partial", "parts"):
            (directory / name).mkdir(parents=True)
        (directory / "parts/debian.sources").write_text(debian_sources())
        self._options = [
            f"-oDir::Etc::sourceparts={directory}/parts",
            "-oDir::Etc::sourcelist=/dev/null",
            f"-oDir::State::lists={directory}/lists",
            f"-oDir::Cache={directory}/cache",
            "-oAPT::Sandbox::User=root",
        ]

    def run(self, command: str, *arguments: str) -> None:
        self._steps.run(command, *self._options, *arguments)

    def dependencies(self, package: str) -> list[str]:
        """Return the packages that this package depends on directly."""
        lines = self._steps.output("apt-cache", *self._options, "depends", package).splitlines()
        return [line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("Depends:")]

    def missing(self, package: str) -> list[str]:
        """Return the packages that an installation of this package would install on this machine."""
        options = ("-s", "--no-install-recommends")
        lines = self._steps.output("apt-get", *self._options, "install", *options, package).splitlines()
        return [line.split()[1] for line in lines if line.startswith("Inst ")]


def debian_sources() -> str:
    """Return this machine's sources of Debian's own archive, with the source packages. Raises SystemExit."""
    paths = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    found = []
    for path in paths:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        if path.suffix == ".sources":
            found += [stanza for stanza in re.split(r"\n\s*\n", path.read_text()) if "bookworm" in stanza]
        else:
            found += [_stanza(line) for line in path.read_text().splitlines() if re.match(r"deb\s.*\bbookworm", line)]
    stanzas = [re.sub(r"(?m)^Types:.*$", "Types: deb deb-src", stanza).strip() for stanza in found if stanza]
    stanzas = [stanza for stanza in stanzas if re.search(r"(?m)^Suites:.*\bbookworm(-\w+)?\s*$", stanza)]
    if not stanzas:
        raise SystemExit("apt has no source of Debian bookworm on this machine")
    return "\n\n".join(stanzas) + "\n"


def _stanza(line: str) -> str:
    """Return a line of sources.list as a stanza of deb822."""
    match = re.match(r"deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line)
    if match is None:
        return ""
    signed = re.search(r"signed-by=([^\s\]]+)", match[1] or "")
    key = f"\nSigned-By: {signed[1]}" if signed else ""
    return f"Types: deb\nURIs: {match[2]}\nSuites: {match[3]}\nComponents: {match[4]}{key}"


def unpack(steps: Steps, root: Path) -> None:
    """Unpack all packages in the working directory into a new directory ``root``."""
    root.mkdir()
    for package in sorted(steps.work.glob("*.deb")):
        steps.run("dpkg-deb", "-x", package, root)
