# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ask etcd's members for their health and version, before anything is changed on a node.

Over HTTPS with the standard library alone: a host on which nothing is installed yet can ask, too.
"""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass

from .access import Access, EtcdError, Member, diagnose, parse_endpoint, tls_context

_PAUSE = 0.2
"""Seconds between two tries while etcd does not answer yet."""


@dataclass(frozen=True)
class Health:
    """The state of one member."""

    endpoint: str
    version: str
    is_healthy: bool
    """Whether it has a leader and takes writes."""


def ask_health(access: Access) -> tuple[Health, ...]:
    """Return the health of each member that answers.

    Raises EtcdError if no member answers, with the reason for each, or if none of those that answer is healthy.
    """
    found, failures = [], []
    for endpoint in access.endpoints:
        member = parse_endpoint(endpoint, access)
        try:
            version = _get(member, access, "/version").get("etcdserver", "")
            healthy = str(_get(member, access, "/health").get("health", "")) == "true"
            found.append(Health(endpoint, str(version), healthy))
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{endpoint} {diagnose(member, access) or f'does not answer as etcd does: {error}'}")
    if not found:
        raise EtcdError("etcd: " + "; ".join(failures))
    if not any(health.is_healthy for health in found):
        raise EtcdError(
            f"etcd: {', '.join(health.endpoint for health in found)} answers, but has no leader or an alarm; "
            "see `etcdctl endpoint status` and `etcdctl alarm list`"
        )
    return tuple(found)


def await_health(access: Access, wait: float) -> tuple[Health, ...]:
    """Return what ask_health returns, but ask an etcd that is about to start again, for up to ``wait`` seconds."""
    deadline = time.monotonic() + wait
    while True:
        try:
            return ask_health(access)
        except EtcdError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_PAUSE)


def _get(member: Member, access: Access, path: str) -> dict[str, object]:
    connection: http.client.HTTPConnection
    if member.tls:
        connection = http.client.HTTPSConnection(
            member.host, member.port, timeout=access.timeout, context=tls_context(access)
        )
    else:
        connection = http.client.HTTPConnection(member.host, member.port, timeout=access.timeout)
    try:
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else {}
