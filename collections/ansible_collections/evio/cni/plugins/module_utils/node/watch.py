# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Repair the node's networks whenever that may be needed: the watch of a container, where no systemd starts ``repair``.

It looks five times a second whether vswitchd has opened a bridge's OpenFlow socket anew, or the conflists have changed,
and repairs then. ``repair`` also runs at the start and at intervals: nothing tells when a firewall manager has removed
rules.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Event
from time import monotonic

from ..cni.netconf import NetConf
from ..errors import EvioError
from ..ovs.openflow import management_socket
from .networks import read_networks
from .pod_routes import PodRoutesKeeper
from .repair import Repair, repair_networks

_LOOK_SECONDS = 0.2
"""Pods stand still from a start of vswitchd until they are repaired."""

_RETRY_SECONDS = 5.0
"""Until the next repair after one that failed."""

_CLAIMS_SECONDS = 10.0
"""Between two looks at the claims of other nodes. etcd answers in a few bytes that nothing has changed."""


class Faults:
    """Faults that are told once, as long as they last, by ``warn``, which is called with a sentence."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._told: set[str] = set()

    def tell(self, faults: list[str]) -> None:
        """Tell those of the present faults that are new."""
        for fault in faults:
            if fault not in self._told:
                self._warn(fault)
        self._told = set(faults)


def keep_pod_routes(
    keeper: PodRoutesKeeper, stop: Event, *, report: Callable[[list[str]], None], warn: Callable[[str], None]
) -> None:
    """Keep the pod routes like the claims until ``stop`` is set; ``report`` is called with the nodes that changed."""
    faults = Faults(warn)
    try:
        while not stop.is_set():
            try:
                report(keeper.update())
                faults.tell([])
            except EvioError as error:
                faults.tell([str(error)])
            stop.wait(_CLAIMS_SECONDS)
    finally:
        # Nothing but stop ends this; after anything else the whole program ends, and is started again.
        stop.set()


class Watch:
    """The watch of one node.

    ``report`` is called with the repairs of all networks, ``warn`` with one sentence for a fault.
    """

    def __init__(
        self,
        conf_dir: str,
        *,
        report: Callable[[list[Repair]], None],
        warn: Callable[[str], None],
        interval: float,
    ) -> None:
        """``interval`` is the time between two repairs if nothing has changed, in seconds."""
        self._conf_dir = conf_dir
        self._report = report
        self._faults = Faults(warn)
        self._interval = interval
        self._networks: list[NetConf] = []

    def run(self, stop: Event) -> None:
        """Watch until ``stop`` is set."""
        seen: object = None
        due = 0.0
        while not stop.is_set():
            found = self._marks()
            if found != seen or monotonic() >= due:
                # The marks were taken before the repair: what changes during it is seen at the next look.
                due = monotonic() + (self._interval if self._repair() else _RETRY_SECONDS)
                seen = found
            stop.wait(_LOOK_SECONDS)

    def _marks(self) -> tuple[object, ...]:
        """Return what differs after a change: of the conflists' directory and of the sockets of the bridges."""
        sockets = [management_socket(conf.ovsdb, conf.bridge) for conf in self._networks]
        return tuple(_mark(path) for path in (self._conf_dir, *sockets))

    def _repair(self) -> bool:
        """Repair all networks. Return False if something could not be repaired."""
        faults: list[str] = []
        repairs: list[Repair] = []
        try:
            self._networks = read_networks(self._conf_dir, warn=faults.append)
            repairs = repair_networks(self._networks)
        except EvioError as error:
            faults.append(str(error))
        self._report(repairs)
        faults += [f"{repair.network}: {failure}" for repair in repairs for failure in repair.failures]
        self._faults.tell(faults)
        return not faults


def _mark(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns
