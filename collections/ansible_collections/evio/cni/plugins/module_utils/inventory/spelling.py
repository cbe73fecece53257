# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names of variables and groups that the inventory has by mistake: Ansible never notices a name that nothing reads.

Pure, and on names alone: nobody needs the values of the variables. What a value must be is checked by ``cluster``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher

from ..errors import EvioError

GROUPS = ("evio_nodes", "evio_control_plane", "evio_pod_nodes", "evio_signalling")
"""The groups that the playbooks read."""

REQUIRED_GROUPS = GROUPS[:2]

_PREFIX = "evio"
_SIMILAR_GROUP = 0.8
_SIMILAR_VARIABLE = 0.6
"""Of SequenceMatcher.ratio: 0.6 is the cutoff that difflib recommends. It only chooses what the message proposes."""
_SIMILAR_PREFIX = 0.75
_MOST_IN_MESSAGE = 10


class SpellingError(EvioError):
    """A variable or a group has a name that nothing reads."""


def check_groups(groups: Mapping[str, Iterable[str]], extra: Iterable[str] = (), files: Iterable[str] = ()) -> None:
    """Raise SpellingError for a group that resembles a group of the playbooks, and for a required group without hosts.

    ``groups`` has the names of each group's hosts, ``files`` the groups that have files in group_vars. A site's own
    groups may begin with evio_ too, if they resemble no group of the playbooks; groups that ``extra`` names are always
    accepted.
    """
    accepted = {*GROUPS, *extra}
    for group in sorted({*groups, *files} - accepted):
        nearest = _nearest_group(group)
        if nearest:
            kind = "group" if group in groups else "group_vars of"
            raise SpellingError(
                f"{kind} {group}: nothing reads it; is it {nearest}? Rename it, or add its name to "
                "evio_extra_names if it is the site's own"
            )
    for group in REQUIRED_GROUPS:
        if not list(groups.get(group, ())):
            raise SpellingError(
                f"group {group}: the inventory has no host in it; see inventories/example/hosts.yml, and whether the "
                "path after -i is right"
            )


def check_run(groups: Mapping[str, Iterable[str]], run: Iterable[str], run_groups: Iterable[str]) -> None:
    """Raise SpellingError if a run has no host of these groups: Ansible would do nothing, and report success.

    ``groups`` has the names of each group's hosts, ``run`` the hosts that --limit leaves.
    """
    names = list(run_groups)
    hosts = {host for group in names for host in groups.get(group, ())}
    if not hosts:
        raise SpellingError(f"group {', '.join(names)}: the inventory has no host in it, so there is nothing to do")
    if hosts.isdisjoint(run):
        raise SpellingError(
            f"no host of this run is in the group {' or '.join(names)}, so there is nothing to do; is --limit right?"
        )


def check_variables(known: Iterable[str], found: Mapping[str, Iterable[str]], extra: Iterable[str] = ()) -> None:
    """Raise SpellingError if a variable begins with evio_ and nothing reads it; the message proposes the nearest name.

    ``known`` are the names that the roles read; ``found`` has the names of the variables of each host. Variables that
    ``extra`` names are accepted.
    """
    names = {*known}
    accepted = {*names, *GROUPS, *extra}
    hosts: dict[str, list[str]] = {}
    for host, variables in found.items():
        for name in variables:
            if name not in accepted:
                hosts.setdefault(name, []).append(host)
    problems = [
        f"{name} ({_where(hosts[name])}): nothing reads this variable; {_proposal(nearest)}"
        for name, nearest in ((name, _nearest_variable(name, names)) for name in sorted(hosts))
        if nearest is not None
    ]
    if problems:
        rest = len(problems) - _MOST_IN_MESSAGE
        raise SpellingError(
            "\n".join(problems[:_MOST_IN_MESSAGE])
            + (f"\nand {rest} more" if rest > 0 else "")
            + "\nRename a misspelt variable. Add a variable of the site's own to evio_extra_names, or let its name not "
            "begin with evio_"
        )


def check_extra_variables(known: Iterable[str], given: Iterable[str], extra: Iterable[str] = ()) -> None:
    """Raise SpellingError if a variable of --extra-vars is one of ours without its evio_.

    ``known`` are the names that the roles read, ``given`` those of --extra-vars alone: an inventory may have variables
    of such names for itself. Variables that ``extra`` names are accepted.
    """
    names = {*known}
    for name in sorted({*map(str, given)} - {*extra}):
        if f"{_PREFIX}_{name}" in names:
            raise SpellingError(
                f"{name} (--extra-vars): no role of this collection reads this variable; is it {_PREFIX}_{name}? "
                "Rename it, or add its name to evio_extra_names if it is the site's own"
            )


def _nearest_group(group: str) -> str | None:
    """Return the group of the playbooks that this name resembles."""
    prefix, name = _split(group)
    if not _resembles_prefix(prefix):
        return None
    return _nearest(name, [known.removeprefix("evio_") for known in GROUPS], _SIMILAR_GROUP)


def _nearest_variable(variable: str, known: Iterable[str]) -> str | None:
    """Return the known variable that this name resembles, "" if it resembles none, None if it is not ours at all."""
    prefix, name = _split(variable)
    if not name or not _resembles_prefix(prefix):
        return None
    # A name that does not begin with evio_ is somebody else's unless it is nearly the name of a variable of ours.
    ours = variable.startswith(f"{_PREFIX}_")
    nearest = _nearest(
        name, [item.removeprefix("evio_") for item in known], _SIMILAR_VARIABLE if ours else _SIMILAR_GROUP
    )
    return nearest or ("" if ours else None)


def _split(name: str) -> tuple[str, str]:
    """Return the part before the first underscore and the rest, in small letters; a hyphen counts as an underscore."""
    plain = name.lower().replace("-", "_")
    if not plain.startswith(_PREFIX) or "_" in plain[: len(_PREFIX) + 1]:
        prefix, _separator, rest = plain.partition("_")
        return prefix, rest
    # evionodes
    return _PREFIX, plain[len(_PREFIX) :].lstrip("_")


def _resembles_prefix(prefix: str) -> bool:
    return prefix == _PREFIX or (
        len(prefix) <= len(_PREFIX) + 1 and SequenceMatcher(None, _PREFIX, prefix).ratio() >= _SIMILAR_PREFIX
    )


def _nearest(name: str, known: Iterable[str], cutoff: float) -> str | None:
    """Return the nearest of these names without prefix, with its prefix; None if none is near enough."""
    ratio, nearest = max((SequenceMatcher(None, name, item).ratio(), item) for item in known)
    return f"evio_{nearest}" if ratio >= cutoff else None


def _where(hosts: list[str]) -> str:
    shown = ", ".join(hosts[:3])
    return shown if len(hosts) <= 3 else f"{shown} and {len(hosts) - 3} more hosts"


def _proposal(nearest: str) -> str:
    return f"is it {nearest}?" if nearest else "the roles' argument_specs list those that are read"
