# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Path selection: whether each peer of the overlay is reached directly or through a relay, and which endpoint to try.

Pure: a state machine that is given messages and the time. Sockets, WireGuard and routes are the agent's work. Each pair
of nodes keeps a session over its direct path, after BFD (RFC 5880 section 6.2): the session is up when both ends hear
each other, so that both ends move their AllowedIPs within one round trip. WireGuard drops a packet if its source is not
among the AllowedIPs of the peer that sent it, so it matters more that both ends agree than that they are quick.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from ..endpoint import endpoint_host, is_named, usable_endpoint
from ..state import DIRECT
from .config import (
    UDP_HEADERS,
    OverlayConfig,
    OverlayPeer,
    PodRoutes,
    former_probe_address,
    host_prefix,
    probe_address,
)
from .messages import DOWN, INIT, UP, Message, Probe, Sighting, Table

INTERVAL = 1.0
"""Seconds between two probes of one peer."""

DETECTION = 3.5
"""Seconds without a probe after which a direct path counts as dead: three lost probes and some delay."""

ATTEMPT_SECONDS = (1.5,) * 4 + (5.0,) * 10 + (15.0,)
"""Seconds for which an endpoint is tried, by the number of attempts before; the last value stays. Short at first, then
WireGuard's own interval between handshakes (REKEY_TIMEOUT), after a minute 15 s: less than the 30 s for which a NAT
keeps an unanswered UDP mapping."""

TABLE_REFRESH = 10.0
"""Seconds between two complete tables from a relay; changes are sent at once."""

SIGHTING_LIFETIME = 3 * TABLE_REFRESH
"""Seconds for which a relay's report of a node counts."""

HOLD_SECONDS = (0.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds for which a path that failed early is not used again, by the number of early failures in a row."""

EARLY = 30.0
"""Seconds: a path that was up for less has failed early."""

SETTLE = 5.0
"""Seconds to which such a hold is cut once one end has moved: the path that failed led to another endpoint."""

FREE_FLAPS = 3
"""Times that a peer may leave the state UP while it is heard before its path is held: each such change moves AllowedIPs
and is reported by relays to all nodes."""

FLAP_SECONDS = 30.0
"""Seconds after which one such change is forgotten."""

MOST_FLAPS = FREE_FLAPS + 4
"""More changes are not counted: HOLD_SECONDS ends there."""

LAN_SECONDS = 5.0
"""Seconds for which a peer's endpoints in its own network are not replaced: a relay reports a change to all nodes."""

ANNOUNCE_INTERVAL = 0.4
"""Seconds between two reports of a relay about the changes of one peer."""

LONGEST_RTT = 60_000
"""Milliseconds. A longer round trip is nonsense: DETECTION ends a session long before."""


@dataclass(frozen=True)
class Outgoing:
    """A message for the agent of one peer. A padded message fills a packet of the overlay's MTU."""

    peer: OverlayPeer
    message: Message
    padded: bool = False


@dataclass(frozen=True)
class Attempt:
    """The request to forget the peer's WireGuard session and to open a new session at this endpoint."""

    peer: OverlayPeer
    endpoint: str


@dataclass(frozen=True)
class Actions:
    """What the agent has to do now: first the attempts, then the messages."""

    attempts: tuple[Attempt, ...] = ()
    outgoing: tuple[Outgoing, ...] = ()


@dataclass(frozen=True)
class PathState:
    """How one peer is reached, for logs and the state file."""

    peer: OverlayPeer
    path: str | None
    """DIRECT, the name of a relay, or None if the peer cannot be reached."""
    rtt_ms: float | None
    """Round trip of the direct path in ms, measured by its probes; None while the session is not up."""
    session: str
    """DOWN, INIT or UP."""


@dataclass
class _Session:
    """The session with one peer over the direct path. Times are the caller's clock in seconds."""

    peer: OverlayPeer
    state: str = DOWN
    heard_at: float | None = None
    remote_state: str = DOWN
    remote_sent: int = 0
    rtt_ms: float | None = None
    up_since: float | None = None
    early_failures: int = 0
    hold_until: float = 0.0
    flaps: float = 0.0
    """Times that the peer left UP while it was heard; fades by one in FLAP_SECONDS."""
    flapped_at: float = 0.0
    damped_until: float = 0.0
    """Until then the path is not used. Unlike hold_until, it does not end when the peer moves."""
    announced_at: float = float("-inf")
    is_current: bool = False
    """Whether a message came from the peer's present probe address: its version is not a former one."""
    sent_at: float = float("-inf")
    attempts: int = 0
    next_attempt: float = 0.0
    endpoint: str | None = None
    """Where WireGuard saw the peer last; a relay reports it to the other nodes."""
    lan: tuple[str, ...] = ()
    """The peer's endpoints in its own network, as its probes gave them."""
    lan_at: float = float("-inf")
    sightings: dict[str, tuple[Sighting, float]] = field(default_factory=dict)
    """The last report of each relay about this peer and the time it came, by the relay's address."""

    def is_heard(self, now: float) -> bool:
        """Return whether a probe came within the detection time."""
        return self.heard_at is not None and now - self.heard_at < DETECTION


class OverlayPaths:
    """The paths of one node to all its peers."""

    def __init__(self, config: OverlayConfig, routes: PodRoutes, now: float) -> None:
        self._sessions: dict[str, _Session] = {}
        self._own_sightings: dict[str, tuple[Sighting, float]] = {}
        self._announced: dict[str, Sighting] = {}
        self._next_table = now
        self._lan: tuple[str, ...] = ()
        self._has_former = False
        self._resolved: dict[str, tuple[str, ...]] = {}
        self.revision = 0
        """Counts the events that may change a path: as long as it is equal, allowed_ips() is equal."""
        self.configure(config, routes)

    def configure(self, config: OverlayConfig, routes: PodRoutes) -> None:
        """Use this configuration from now on; peers whose address and key are the same keep their sessions."""
        self.revision += 1
        self._config = config
        self._routes = routes
        kept = self._sessions
        self._sessions = {}
        for peer in config.peers:
            session = kept.get(peer.address)
            if session is None or session.peer.public_key != peer.public_key:
                session = _Session(peer)
            session.peer = peer
            self._sessions[peer.address] = session
        named = {peer.endpoint for peer in config.peers if peer.endpoint is not None and is_named(peer.endpoint)}
        self._resolved = {endpoint: found for endpoint, found in self._resolved.items() if endpoint in named}
        former = Counter(former_probe_address(address) for address in (config.address, *self._sessions))
        self._former = {
            peer.address: former_probe_address(peer.address)
            for peer in config.peers
            # In a host overlay of more than 65536 addresses, two nodes may have the same.
            if former[former_probe_address(peer.address)] == 1
        }
        self._by_probe = {probe: address for address, probe in self._former.items()}
        self._by_probe.update({probe_address(peer.address): peer.address for peer in config.peers})
        self._relays = tuple(peer for peer in config.peers if peer.is_relay)
        self._networks = [ip_network(cidr) for cidr in (config.host_cidr, *routes.pod_cidrs)]
        relays = {relay.address for relay in self._relays}
        for known in (self._own_sightings, *(session.sightings for session in self._sessions.values())):
            for address in known.keys() - relays:
                del known[address]

    def use_former_probe_addresses(self, is_used: bool) -> None:
        """Set whether this node has its former probe address, and so hears nodes of former versions."""
        if is_used != self._has_former:
            self.revision += 1
        self._has_former = is_used

    @property
    def has_former_peers(self) -> bool:
        """Whether a peer was not yet heard at its present probe address."""
        return not all(session.is_current for session in self._sessions.values())

    def is_former(self, peer: OverlayPeer) -> bool:
        """Return whether messages for the peer are sent to its former probe address as well."""
        return self._has_former and not self._sessions[peer.address].is_current

    def set_addresses(self, endpoint: str, found: Iterable[str], now: float) -> None:
        """Set ``address:port`` of each address that a relay's ``name:port`` has. A relay that is not heard is tried."""
        usable = tuple(address for address in found if self._is_outside(address))
        is_new = set(usable) != set(self._resolved.get(endpoint, ()))
        self._resolved[endpoint] = usable
        for session in self._sessions.values():
            if is_new and session.peer.endpoint == endpoint and not session.is_heard(now):
                session.attempts = 0
                session.next_attempt = now

    def unreached_endpoints(self, now: float) -> set[str]:
        """Return the endpoints of the relays that are not heard: their names may have other addresses by now."""
        return {
            session.peer.endpoint
            for session in self._sessions.values()
            if session.peer.endpoint is not None and not session.is_heard(now)
        }

    def relay_endpoints(self) -> list[str]:
        """Return ``address:port`` of every relay, as far as their names have addresses."""
        return [endpoint for relay in self._relays for endpoint in self._fixed_endpoints(relay)]

    def announce_lan(self, endpoints: Iterable[str]) -> None:
        """Set this node's endpoints in its own network, which nodes behind the same NAT try."""
        self._lan = tuple(endpoints)

    def observe(self, endpoints: Mapping[str, str | None]) -> None:
        """Set the endpoints at which WireGuard sees the peers now, by public key; None leaves the last endpoint."""
        for session in self._sessions.values():
            seen = endpoints.get(session.peer.public_key)
            if seen is None or seen == session.endpoint:
                continue
            # An endpoint that other nodes cannot use, such as fe80::1%eth0, is neither reported nor tried.
            if usable_endpoint(seen) == seen and self._is_outside(seen):
                session.endpoint = seen

    def restarted(self, now: float) -> None:
        """Forget all sessions: the interface was created again, and no peer has a WireGuard session any more."""
        for session in self._sessions.values():
            self._forget(session, now)

    def sender(self, source: str) -> OverlayPeer | None:
        """Return the peer that has this probe address; None if no peer has it."""
        address = self._by_probe.get(source)
        return None if address is None else self._sessions[address].peer

    def receive(self, source: str, message: Message, now: float) -> Actions:
        """Process a message that came from this probe address; a message of an unknown sender is ignored.

        A relay reports the changes of one peer at most once in ANNOUNCE_INTERVAL, however many messages come.
        """
        address = self._by_probe.get(source)
        if address is None:
            return Actions()
        session = self._sessions[address]
        if source == probe_address(address):
            session.is_current = True
        if isinstance(message, Table):
            if session.peer.is_relay:
                self._learn(session.peer, message, now)
            return Actions()
        before = session.state
        newly_heard = not session.is_heard(now)
        session.heard_at = now
        session.remote_state = message.state
        session.remote_sent = message.sent
        if message.lan != session.lan and now - session.lan_at >= LAN_SECONDS:
            session.lan, session.lan_at = message.lan, now
        if message.echo is not None:
            rtt = _milliseconds(now) - message.echo - message.held
            if rtt <= LONGEST_RTT:
                session.rtt_ms = float(max(0, rtt))
        self._advance(session, now)
        outgoing: list[Outgoing] = []
        if newly_heard or session.state != before:
            outgoing.append(self._probe(session, now))
        outgoing += self._announcements(now, whole_for=session if before != UP and session.state == UP else None)
        return Actions(outgoing=tuple(outgoing))

    def tick(self, now: float) -> Actions:
        """Process the passing of time: dead paths, endpoints to try, messages that are due. Call it every 0.5 s."""
        attempts: list[Attempt] = []
        outgoing: list[Outgoing] = []
        for session in self._sessions.values():
            before = session.state
            self._advance(session, now)
            attempt = self._attempt(session, now)
            if attempt is not None:
                attempts.append(attempt)
            is_due = session.is_heard(now) and now - session.sent_at >= INTERVAL * 0.9
            # The other end moves its AllowedIPs once it hears of a change; until then WireGuard drops packets.
            if attempt is not None or session.state != before or is_due:
                outgoing.append(self._probe(session, now))
        outgoing += self._announcements(now)
        return Actions(tuple(attempts), tuple(outgoing))

    def allowed_ips(self, now: float) -> dict[str, tuple[str, ...]]:
        """Return the AllowedIPs of every peer by its public key. A probe address always belongs to its own node."""
        allowed: dict[str, list[str]] = {
            session.peer.public_key: [host_prefix(probe_address(session.peer.address))]
            for session in self._sessions.values()
        }
        if self._has_former:
            for address, probe in self._former.items():
                allowed[self._sessions[address].peer.public_key].append(host_prefix(probe))
        for session in self._sessions.values():
            hop = self._next_hop(session, now)
            allowed[hop.public_key] += [
                host_prefix(session.peer.address),
                *self._routes.subnets.get(session.peer.name, ()),
            ]
        return {key: tuple(prefixes) for key, prefixes in allowed.items()}

    def states(self, now: float) -> tuple[PathState, ...]:
        """Return how each peer is reached, in the order of the configuration."""
        return tuple(self._path_state(session, now) for session in self._sessions.values())

    # Sessions

    def _advance(self, session: _Session, now: float) -> None:
        if not session.is_heard(now) or now < max(session.hold_until, session.damped_until):
            state = DOWN
        elif session.remote_state in (INIT, UP):
            state = UP
        else:
            state = INIT
        if session.state == UP and state != UP:
            self._record_failure(session, now)
        elif state == UP and session.state != UP:
            session.up_since = now
            session.attempts = 0
        if (session.state == UP) != (state == UP):
            self.revision += 1
        session.state = state

    def _record_failure(self, session: _Session, now: float) -> None:
        """Hold a direct path that failed early, longer each time; a pair with a relay in it has no other path."""
        is_early = session.up_since is not None and now - session.up_since < EARLY
        if not session.is_heard(now) and not self._has_relay(session.peer):
            session.early_failures = min(session.early_failures + 1, len(HOLD_SECONDS) - 1) if is_early else 0
            session.hold_until = now + HOLD_SECONDS[session.early_failures]
        elif session.is_heard(now):
            self._damp(session, now)
        session.up_since = None
        session.next_attempt = now

    def _damp(self, session: _Session, now: float) -> None:
        """Hold the path of a peer that is heard but changes its state again and again, longer each time."""
        session.flaps = max(0.0, session.flaps - (now - session.flapped_at) / FLAP_SECONDS) + 1
        session.flaps = min(session.flaps, MOST_FLAPS)
        session.flapped_at = now
        excess = int(session.flaps) - FREE_FLAPS
        if excess > 0:
            session.damped_until = now + HOLD_SECONDS[excess]

    def _forget(self, session: _Session, now: float) -> None:
        self.revision += 1
        session.state = session.remote_state = DOWN
        session.heard_at = session.up_since = None
        session.attempts = 0
        session.next_attempt = now

    def _attempt(self, session: _Session, now: float) -> Attempt | None:
        """Return the next attempt if it is due: the peer's possible endpoints are tried in turn."""
        if session.is_heard(now) or now < session.next_attempt:
            return None
        candidates = self._candidates(session, now)
        if not candidates:
            return None
        endpoint = candidates[session.attempts % len(candidates)]
        session.next_attempt = now + ATTEMPT_SECONDS[min(session.attempts, len(ATTEMPT_SECONDS) - 1)]
        session.attempts += 1
        return Attempt(session.peer, endpoint)

    def _candidates(self, session: _Session, now: float) -> list[str]:
        """Return the endpoints at which the peer may be reached, the most likely first."""
        if fixed := self._fixed_endpoints(session.peer):
            return fixed
        fresh = [sighting for sighting, at in session.sightings.values() if now - at < SIGHTING_LIFETIME]
        seen = [sighting.endpoint for sighting in fresh if sighting.endpoint and self._is_outside(sighting.endpoint)]
        lan = [
            endpoint
            for sighting in fresh
            for endpoint in sighting.lan
            if endpoint not in self._lan and self._is_outside(endpoint)
        ]
        own_hosts = {
            endpoint_host(sighting.endpoint) for sighting, _at in self._own_sightings.values() if sighting.endpoint
        }
        same_nat = any(endpoint_host(endpoint) in own_hosts for endpoint in seen)
        last = [session.endpoint] if session.endpoint else []
        return list(dict.fromkeys([*lan, *seen, *last] if same_nat else [*seen, *lan, *last]))

    def _fixed_endpoints(self, peer: OverlayPeer) -> list[str]:
        """Return ``address:port`` of a relay's endpoint; nothing for another peer or a name without an address."""
        if peer.endpoint is None:
            return []
        return list(self._resolved.get(peer.endpoint, ())) if is_named(peer.endpoint) else [peer.endpoint]

    def _is_outside(self, endpoint: str) -> bool:
        """Return whether the endpoint is outside the overlay: WireGuard's packets must not enter their own tunnel."""
        address = ip_address(endpoint_host(endpoint))
        return not any(address in network for network in self._networks)

    def _probe(self, session: _Session, now: float) -> Outgoing:
        session.sent_at = now
        echo = session.remote_sent if session.heard_at is not None else None
        held = _milliseconds(now - session.heard_at) if session.heard_at is not None else 0
        probe = Probe(session.state, _milliseconds(now), echo, held, self._lan)
        return Outgoing(session.peer, probe, padded=session.state != UP and not self._has_relay(session.peer))

    def _has_relay(self, peer: OverlayPeer) -> bool:
        """Return whether the peer or this node is a relay."""
        return peer.is_relay or self._config.is_relay

    # Relays' tables

    def _announcements(self, now: float, whole_for: _Session | None = None) -> list[Outgoing]:
        """Return the tables for the peers of a relay: the changes, or all sightings when those are due.

        The peer whose session ``whole_for`` is, and each peer that has moved, get all sightings: tables that were sent
        to the endpoint before are lost.
        """
        if not self._config.is_relay:
            return []
        current = {
            address: Sighting(address, session.endpoint, session.state == UP, session.lan)
            for address, session in self._sessions.items()
            if session.endpoint is not None or session.state == UP
        }
        for address, sighting in self._announced.items():
            if address not in current and address in self._sessions:
                current[address] = replace(sighting, is_up=False)
        changed = [address for address, sighting in current.items() if self._announced.get(address) != sighting]
        # The change of a peer that was reported a moment ago waits for a later call.
        waiting = {address for address in changed if now - self._sessions[address].announced_at < ANNOUNCE_INTERVAL}
        for address in waiting:
            if address in self._announced:
                current[address] = self._announced[address]
            else:
                del current[address]
        rows = [current[address] for address in changed if address not in waiting]
        moved = {
            sighting.address
            for sighting in rows
            if sighting.address in self._announced and _has_moved(self._announced[sighting.address], sighting)
        }
        for sighting in rows:
            self._sessions[sighting.address].announced_at = now
        self._announced = current
        if now >= self._next_table:
            self._next_table = now + TABLE_REFRESH
            rows = list(current.values())
        outgoing = []
        for session in self._sessions.values():
            if session.state == UP:
                gets_all = session is whole_for or session.peer.address in moved
                tables = Table.split(list(current.values()) if gets_all else rows, self._config.mtu - UDP_HEADERS)
                outgoing += [Outgoing(session.peer, table) for table in tables]
        return outgoing

    def _learn(self, relay: OverlayPeer, table: Table, now: float) -> None:
        """Take over a relay's sightings, and try at once what they make worth trying."""
        for sighting in table.sightings:
            if sighting.address == self._config.address:
                own = self._own_sightings.get(relay.address)
                self._own_sightings[relay.address] = (sighting, now)
                if own is not None and _has_moved(own[0], sighting):
                    for other in self._sessions.values():
                        self._retry_now(other, now)
                continue
            session = self._sessions.get(sighting.address)
            if session is None:
                continue
            before = self._candidates(session, now)
            known = session.sightings.get(relay.address)
            if known is None or known[0].is_up != sighting.is_up:
                self.revision += 1
            session.sightings[relay.address] = (sighting, now)
            if known is not None and _has_moved(known[0], sighting):
                self._retry_now(session, now)
            elif not session.is_heard(now) and set(self._candidates(session, now)) - set(before):
                session.attempts = 0
                session.next_attempt = now

    def _retry_now(self, session: _Session, now: float) -> None:
        """Try the direct path again: one end has moved. The relay tells both ends, so that both try at once."""
        session.hold_until = min(session.hold_until, now + SETTLE)
        if not session.is_heard(now):
            session.attempts = 0
            session.next_attempt = now

    # Next hops

    def _next_hop(self, session: _Session, now: float) -> OverlayPeer:
        """Return the peer that gets the packets for this session's peer: itself, or a relay.

        All nodes have the relays in the same order, that of their addresses, so both ends of a pair choose the same.
        """
        if session.state == UP:
            return session.peer
        usable = [relay for relay in self._relays if relay is not session.peer and self._is_up(relay)]
        for relay in usable:
            sighting = session.sightings.get(relay.address)
            if sighting is not None and sighting[0].is_up and now - sighting[1] < SIGHTING_LIFETIME:
                return relay
        if self._has_relay(session.peer):
            return session.peer
        others = usable or [relay for relay in self._relays if relay is not session.peer]
        return others[0] if others else session.peer

    def _is_up(self, peer: OverlayPeer) -> bool:
        return self._sessions[peer.address].state == UP

    def _path_state(self, session: _Session, now: float) -> PathState:
        hop = self._next_hop(session, now)
        path = None
        if hop is not session.peer:
            path = hop.name if self._is_up(hop) else None
        elif session.state == UP:
            path = DIRECT
        return PathState(session.peer, path, session.rtt_ms if session.state == UP else None, session.state)


def _has_moved(before: Sighting, now: Sighting) -> bool:
    """Return whether a relay sees a node at another endpoint than before."""
    return now.endpoint is not None and before.endpoint not in (None, now.endpoint)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
