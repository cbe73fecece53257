# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""firewalld by its program firewall-cmd: put our interfaces into its zone ``trusted``, and open the overlay's UDP port.

firewalld writes its table anew at each reload, so a rule of ours would not stay there. Both its running and its
permanent configuration are changed, as its manual says.
"""

from __future__ import annotations

import shutil
import subprocess

from .verdict import BaseChain

_SEARCH_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"

_TIMEOUT_SECONDS = 15
"""firewall-cmd is a Python program that waits for D-Bus."""

_TABLE = "firewalld"


def is_chain(chain: BaseChain) -> bool:
    """Return whether the chain is firewalld's."""
    return chain.table == _TABLE and not chain.is_legacy


def is_running() -> bool:
    """Return whether firewalld answers."""
    return _run(["--state"])


def accept(interface: str | None, port: int | None) -> bool:
    """Let firewalld accept packets of the interface, or to the UDP port; return whether it has done so."""
    return all(_run(arguments) for arguments in _commands("add", interface, port))


def withdraw(interface: str, port: int | None) -> None:
    """Take back what ``accept`` has done, where firewalld runs."""
    if is_running():
        for arguments in [*_commands("remove", interface, None), *(_commands("remove", None, port) if port else [])]:
            _run(arguments)


def remedy(interface: str | None, port: int | None) -> str:
    """Return the commands that ``accept`` carries out, for people."""
    return "; ".join(f"firewall-cmd {' '.join(map(_quoted, words))}" for words in _commands("add", interface, port))


def _commands(verb: str, interface: str | None, port: int | None) -> list[list[str]]:
    if interface is not None:
        change = ["--zone=trusted", f"--{verb}-interface={interface}"]
    else:
        # Not --add-port, which the site may have used itself: a rule that is ours alone can be taken back.
        change = [f'--{verb}-rich-rule=rule port port="{port}" protocol="udp" accept']
    return [change, ["--permanent", *change]]


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


def _run(arguments: list[str]) -> bool:
    program = shutil.which("firewall-cmd", path=_SEARCH_PATH)
    if program is None:
        return False
    try:
        done = subprocess.run(
            [program, "--quiet", *arguments], capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
