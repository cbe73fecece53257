# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nftables by its program ``nft``: apply rules and list them. The rules themselves are the callers' subject.

Starting a process takes longer than a whole ADD, so ADD asks the kernel by netlink first whether rules are missing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from ..deadline import seconds_left
from ..errors import EvioError

_SEARCH_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
"""Runtimes start plugins with a PATH of their own."""

_TIMEOUT_SECONDS = 10.0
"""Where no call of the runtime has begun."""


class NftError(EvioError):
    """nft is not installed, refuses the rules, or does not end in time."""


def apply(ruleset: str) -> None:
    """Carry out the commands of a ruleset (nft(8)) in one transaction. Raises NftError."""
    _run(["-f", "-"], ruleset)


def list_objects(*what: str) -> list[dict[str, Any]]:
    """Return the objects that ``nft list WHAT`` prints as JSON (libnftables-json(5)). Raises NftError."""
    output = _run(["--json", "--handle", "list", *what], "")
    try:
        objects: list[dict[str, Any]] = json.loads(output or "{}").get("nftables", [])
    except ValueError as error:
        raise NftError(f"nft list {' '.join(what)} printed something else than JSON: {error}") from None
    return objects


def chains(table: str, family: str) -> list[str]:
    """Return the names of the chains of a table. Raises NftError."""
    found = [item["chain"] for item in list_objects("chains", family) if "chain" in item]
    return [chain["name"] for chain in found if chain["table"] == table]


def _run(arguments: list[str], stdin: str) -> str:
    program = shutil.which("nft", path=_SEARCH_PATH)
    if program is None:
        raise NftError("rules of the node need nft: install the package nftables")
    limit = seconds_left(_TIMEOUT_SECONDS)
    try:
        done = subprocess.run(
            [program, *arguments], input=stdin, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise NftError(f"nft did not end within {limit:.1f} s") from None
    except OSError as error:
        raise NftError(f"cannot start {program}: {error.strerror}") from None
    if done.returncode != 0:
        raise NftError(f"nft refuses the rules: {done.stderr.strip()}")
    return done.stdout
