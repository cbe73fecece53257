# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Looking up the addresses of DNS names without waiting: each lookup is a process of its own with a deadline.

``getent`` (libc-bin) asks what the node is set up to ask: /etc/hosts, DNS or others. What an endpoint may look like is
endpoint's subject.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Collection, Iterable
from typing import IO

from .endpoint import is_named, join_endpoint, usable_endpoint

DEADLINE = 10.0
"""Seconds for one lookup."""

LIFETIME = 300.0
"""Seconds after which a name is looked up again."""

URGENT_INTERVAL = 10.0
"""Seconds between two lookups of a name whose node cannot be reached, or that has no address."""

MOST_ADDRESSES = 8
"""Addresses of one name that are used."""

MOST_LOOKUPS = 4
"""Lookups at a time."""

_MOST_OUTPUT = 1 << 16
"""Bytes: what a pipe holds. A lookup that prints more ends at its deadline."""


def resolve_endpoint(endpoint: str) -> tuple[str, ...]:
    """Return ``address:port`` of each address that a ``name:port`` has now; the endpoint itself if it has no name.

    Waits for at most DEADLINE; returns nothing if there is no answer or no usable address.
    """
    if not is_named(endpoint):
        return (endpoint,)
    lookup = _Lookup(endpoint, time.monotonic())
    while (found := lookup.poll(time.monotonic())) is None:
        time.sleep(0.02)
    return found


class NameLookups:
    """The addresses of the names in some endpoints, kept up to date. Times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        """Time of the next lookup by endpoint."""
        self._done: dict[str, float] = {}
        self._known: dict[str, tuple[str, ...]] = {}
        self._running: dict[str, _Lookup] = {}

    def watch(self, endpoints: Iterable[str]) -> None:
        """Look up these endpoints, as far as they have names, and forget all others."""
        named = {endpoint for endpoint in endpoints if is_named(endpoint)}
        for endpoint in self._due.keys() - named:
            for known in (self._due, self._done, self._known):
                known.pop(endpoint, None)
            if endpoint in self._running:
                self._running.pop(endpoint).end()
        for endpoint in named - self._due.keys():
            self._due[endpoint] = float("-inf")

    def poll(self, now: float, urgent: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
        """Return ``address:port`` of each endpoint whose lookup has ended; nothing for an endpoint without an answer.

        ``urgent`` has the endpoints of nodes that cannot be reached: these may have moved. Never waits.
        """
        ended = {}
        for endpoint, lookup in list(self._running.items()):
            found = lookup.poll(now)
            if found is None:
                continue
            del self._running[endpoint]
            self._done[endpoint] = now
            self._due[endpoint] = now + (LIFETIME if found else URGENT_INTERVAL)
            ended[endpoint] = found
        for endpoint, due in self._due.items():
            if endpoint in urgent:
                due = min(due, self._done.get(endpoint, float("-inf")) + URGENT_INTERVAL)
            if now >= due and endpoint not in self._running and len(self._running) < MOST_LOOKUPS:
                self._due[endpoint] = now + URGENT_INTERVAL
                self._running[endpoint] = _Lookup(endpoint, now)
        return ended


class _Lookup:
    """One run of getent."""

    def __init__(self, endpoint: str, now: float) -> None:
        name, _colon, port = endpoint.rpartition(":")
        self._port = int(port)
        self._deadline = now + DEADLINE
        self._process: subprocess.Popen[bytes] | None = None
        # Without getent, or without a process to run it in, the name has no address for now.
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                ["getent", "ahosts", name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def poll(self, now: float) -> tuple[str, ...] | None:
        """Return ``address:port`` of each usable address, or None while the lookup runs."""
        if self._process is None:
            return ()
        if self._process.poll() is None:
            if now < self._deadline:
                return None
            self.end()
            return ()
        output: IO[bytes] = self._process.stdout  # type: ignore[assignment]  # Popen was given a pipe.
        with output:
            text = os.read(output.fileno(), _MOST_OUTPUT).decode("ascii", "replace")
        found = (
            usable_endpoint(join_endpoint(line.split()[0], self._port)) for line in text.splitlines() if line.strip()
        )
        return tuple(dict.fromkeys(endpoint for endpoint in found if endpoint is not None))[:MOST_ADDRESSES]

    def end(self) -> None:
        """End the lookup without its result."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
