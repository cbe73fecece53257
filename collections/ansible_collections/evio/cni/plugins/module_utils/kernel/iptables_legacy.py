# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""iptables-legacy by its programs: list the rules of a table, insert and delete a rule of table filter.

Its rules are not nftables': ``nft`` does not show them. Nothing is started unless the kernel has a table of it, because
listing a table would create it.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess

from ..deadline import seconds_left
from ..errors import EvioError

_SEARCH_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"

_PROGRAMS = {"ip": "iptables-legacy", "ip6": "ip6tables-legacy"}

_TABLES = {"ip": "/proc/net/ip_tables_names", "ip6": "/proc/net/ip6_tables_names"}
"""The tables that the network namespace has, by family."""

_TIMEOUT_SECONDS = 10.0
"""Where no call of the runtime has begun."""

_LOCK_SECONDS = "5"


class IptablesError(EvioError):
    """iptables-legacy is not installed, refuses a command, or does not end in time."""


def save(family: str, table: str = "filter") -> str:
    """Return the text of iptables-save for a table; empty where the kernel has no such table.

    ``family`` is ``ip`` or ``ip6``. Raises IptablesError.
    """
    if table not in _tables(family):
        return ""
    return _run(f"{_PROGRAMS[family]}-save", ["-t", table])


def has_tables() -> bool:
    """Return whether the kernel has a table of iptables-legacy in this network namespace."""
    return any(map(_tables, _TABLES))


def run(family: str, arguments: list[str]) -> None:
    """Carry out one command of iptables-legacy on table filter. Raises IptablesError."""
    _run(_PROGRAMS[family], ["-w", _LOCK_SECONDS, *arguments])


def delete(family: str, chain: str, comment: str) -> None:
    """Delete the first rule of a chain that has this comment; do nothing without one. Raises IptablesError."""
    for line in save(family).splitlines():
        words = shlex.split(line) if line.startswith(f"-A {chain} ") else []
        if comment in words:
            run(family, ["-D", *words[1:]])
            return


def _tables(family: str) -> list[str]:
    """Return the names of the tables of a family; none where the kernel's module is not loaded."""
    try:
        with open(_TABLES[family], encoding="ascii") as listed:
            return listed.read().split()
    except OSError:
        return []


def _run(name: str, arguments: list[str]) -> str:
    program = shutil.which(name, path=_SEARCH_PATH)
    if program is None:
        raise IptablesError(f"{name} is not installed, and this kernel has rules of iptables-legacy")
    limit = seconds_left(_TIMEOUT_SECONDS)
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise IptablesError(f"{name} did not end within {limit:.1f} s") from None
    except OSError as error:
        raise IptablesError(f"cannot start {program}: {error.strerror}") from None
    if done.returncode != 0:
        raise IptablesError(f"{name} refuses {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
