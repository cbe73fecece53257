# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether each host of the inventory is the machine that the inventory takes it for. Pure.

Each machine's own words are read by node/identity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import EvioError
from ..names import is_node_name

_HEX_DIGITS = frozenset("0123456789abcdef")
_MACHINE_ID_LENGTH = 32
_SET_UP = "on that host, run: rm /etc/machine-id && systemd-machine-id-setup && reboot"


class WrongHostError(EvioError):
    """One or more hosts are not the machines that the inventory takes them for; the message names each."""


class RenameError(EvioError):
    """Nodes cannot get the names that they are to get; the message names each of them and what to do."""


@dataclass(frozen=True)
class SeenIdentity:
    """What the machine says of itself that Ansible reached under a host's name; empty strings are not said."""

    hostname: str
    machine_id: str
    node: str
    cluster: str


def refuse_wrong_hosts(cluster: str, seen: Mapping[str, SeenIdentity], renamed: Mapping[str, str]) -> None:
    """Raise WrongHostError for every host of ``seen`` that must not be changed under its name.

    ``seen`` has the identity by the inventory's name. ``renamed`` has the former name by the new name of nodes whose
    name is being changed.
    """
    faults = [fault for name, identity in sorted(seen.items()) for fault in _faults(cluster, name, identity, renamed)]
    faults += _shared_machine_ids(seen)
    if faults:
        raise WrongHostError("; ".join(faults))


def former_names(renames: Mapping[str, str], nodes: Iterable[str], seen: Mapping[str, SeenIdentity]) -> dict[str, str]:
    """Return the former name by the new name. ``renames`` has the new name by the former name.

    ``nodes`` are the names of all nodes in the inventory, ``seen`` has the identity of those that answered. Raises
    RenameError for each rename that the inventory or the machine contradicts.
    """
    check_renames(renames, nodes)
    faults = [fault for former, name in sorted(renames.items()) for fault in _machine_faults(former, name, seen)]
    if faults:
        raise RenameError(f"evio_rename: {'; '.join(faults)}")
    return {name: former for former, name in renames.items()}


def check_renames(renames: Mapping[str, str], nodes: Iterable[str]) -> None:
    """Raise RenameError for each rename that the inventory contradicts, whose nodes are ``nodes``."""
    names = frozenset(nodes)
    news = Counter(renames.values())
    faults = [fault for former, name in sorted(renames.items()) for fault in _name_faults(former, name, names)]
    faults += [f"{name}: {count} nodes are to get this name" for name, count in sorted(news.items()) if count > 1]
    if faults:
        raise RenameError(f"evio_rename: {'; '.join(faults)}")


def _name_faults(former: str, name: str, nodes: frozenset[str]) -> list[str]:
    if not is_node_name(former) or not is_node_name(name):
        return [
            f"{former!r:.80} and {name!r:.80} must both be names of nodes; give it as former=new, with a comma between "
            "several"
        ]
    if former in nodes:
        return [
            f"{former} is still in the inventory; put {name} there in its place. Two nodes that swap their names do so "
            "by way of a third name"
        ]
    if name not in nodes:
        return [f"{name} is not in the group evio_nodes; put it there in place of {former}"]
    return []


def _machine_faults(former: str, name: str, seen: Mapping[str, SeenIdentity]) -> list[str]:
    if name not in seen:
        return [f"{name} does not answer, so nobody can tell whether it is {former}; a lost node is not renamed"]
    if not seen[name].node:
        return [
            f"{name}: the machine that answers (hostname {seen[name].hostname}) was never set up, so it is not "
            f"{former}; check ansible_host, ansible_port and jump hosts"
        ]
    return []


def _faults(cluster: str, name: str, identity: SeenIdentity, renamed: Mapping[str, str]) -> list[str]:
    machine_id = identity.machine_id
    if len(machine_id) != _MACHINE_ID_LENGTH or not _HEX_DIGITS.issuperset(machine_id) or not machine_id.strip("0"):
        return [f"{name}: its machine-id is {machine_id!r:.40}, which identifies no machine; {_SET_UP}"]
    if identity.cluster and identity.cluster != cluster:
        return [
            f"{name}: the machine that answers (hostname {identity.hostname}) is node {identity.node} of cluster "
            f"{identity.cluster}, not of {cluster}; check ansible_host, ansible_port and jump hosts, or take it out of "
            "its cluster with remove_node.yml"
        ]
    if identity.node and identity.node not in (name, renamed.get(name, name)):
        return [
            f"{name}: the machine that answers (hostname {identity.hostname}) was set up as node {identity.node}; "
            f"check ansible_host, ansible_port and jump hosts. If {identity.node} gets the new name {name}, run "
            f"rename_node.yml -e evio_rename={identity.node}={name}"
        ]
    return []


def _shared_machine_ids(seen: Mapping[str, SeenIdentity]) -> list[str]:
    names: dict[str, list[str]] = {}
    for name, identity in seen.items():
        names.setdefault(identity.machine_id, []).append(name)
    faults = []
    for machine_id, sharers in sorted(names.items()):
        if len(sharers) < 2 or not machine_id:
            continue
        hostnames = {seen[name].hostname for name in sharers}
        listed = " and ".join(sorted(sharers))
        if len(hostnames) > 1:
            faults.append(
                f"{listed} have one machine-id, {machine_id}, and different hostnames: one is a clone of the other; "
                f"{_SET_UP.replace('that host', 'the clone')}"
            )
        else:
            faults.append(
                f"{listed} have one machine-id, {machine_id}, and one hostname, {hostnames.pop()}: Ansible reaches the "
                "same machine under these names; check ansible_host, ansible_port and jump hosts"
            )
    return faults
