# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nftables by its own program, for the rare call that must change rules: which rules is its callers' subject."""

from __future__ import annotations

import json
import os
import subprocess

from ..errors import EvioError

_PROGRAMS = ("/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft")
_TIMEOUT_SECONDS = 10


class NftError(EvioError):
    """The rules cannot be put in place."""


def apply(ruleset: str) -> None:
    """Put rules in place, all or none. Raises NftError."""
    _run(["-f", "-"], ruleset)


def chains(table: str, family: str) -> list[str]:
    """The names of a table's chains. Raises NftError."""
    entries = json.loads(_run(["-j", "list", "chains", family], "") or "{}").get("nftables", [])
    return [entry["chain"]["name"] for entry in entries if entry.get("chain", {}).get("table") == table]


def _run(arguments: list[str], stdin: str) -> str:
    program = next((path for path in _PROGRAMS if os.path.exists(path)), None)
    if program is None:
        raise NftError("rules of the node need nft: install the package nftables")
    try:
        done = subprocess.run(
            [program, *arguments], input=stdin, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise NftError(f"nft did not end within {_TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        raise NftError(f"nft refuses the rules: {done.stderr.strip()}")
    return done.stdout
