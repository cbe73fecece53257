# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which way leads to each peer of the overlay now: directly, or through which relay; and what to try for a better one.

Pure: a state machine fed with messages and the time. Sockets, WireGuard and routes are overlay_agent's work. Each pair
of nodes keeps a session over its direct path, after BFD (RFC 5880 section 6.2): it is up when both ends hear each
other, so that both ends move their AllowedIPs within one round trip. WireGuard drops what comes from a peer that the
sender's address does not belong to, so agreement matters more than speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..endpoint import endpoint_host
from .config import OverlayConfig, OverlayPeer, PodRoutes, host_prefix, probe_address
from .messages import DOWN, INIT, UP, Message, Probe, Sighting, Table

INTERVAL = 1.0
"""Seconds between two probes of one peer."""
DETECTION = 3.5
"""Seconds without a probe after which a direct path counts as dead: three probes lost, and some delay."""
ATTEMPT_SECONDS = (1.5,) * 4 + (5.0,) * 10 + (15.0,)
"""How long one endpoint is tried: quickly first, then as WireGuard repeats a handshake (REKEY_TIMEOUT), after a minute
for good at less than the 30 s for which a NAT keeps an unanswered UDP mapping."""
TABLE_REFRESH = 10.0
"""Seconds between two whole tables from a relay; changes are sent at once."""
SIGHTING_LIFETIME = 3 * TABLE_REFRESH
HOLD_SECONDS = (0.0, 2.0, 5.0, 15.0, 60.0)
"""How long a path that died young is not taken again, by how often that happened in a row."""
YOUNG = 30.0
SETTLE = 5.0
"""How long such a path waits at most once one end was seen to have moved: what died went to another place."""
DIRECT = "direct"


@dataclass(frozen=True)
class Outgoing:
    """A message for the agent of one direct peer; padded ones fill a packet of the overlay's MTU."""

    peer: OverlayPeer
    message: Message
    padded: bool = False


@dataclass(frozen=True)
class Attempt:
    """Forget the peer's WireGuard session and open a new one at this endpoint."""

    peer: OverlayPeer
    endpoint: str


@dataclass(frozen=True)
class Actions:
    attempts: tuple[Attempt, ...] = ()
    outgoing: tuple[Outgoing, ...] = ()


@dataclass(frozen=True)
class PathState:
    """For people: how one peer is reached."""

    peer: OverlayPeer
    path: str | None
    """DIRECT, the name of a relay, or None where nothing leads to the peer."""
    rtt_ms: float | None
    """Of the direct path, as its probes measure it."""
    session: str


@dataclass
class _Session:
    peer: OverlayPeer
    state: str = DOWN
    heard_at: float | None = None
    remote_state: str = DOWN
    remote_sent: int = 0
    rtt_ms: float | None = None
    up_since: float | None = None
    young_deaths: int = 0
    hold_until: float = 0.0
    sent_at: float = float("-inf")
    attempts: int = 0
    next_attempt: float = 0.0
    endpoint: str | None = None
    """Where WireGuard saw the peer; what a relay tells others."""
    lan: tuple[str, ...] = ()
    sightings: dict[str, tuple[Sighting, float]] = field(default_factory=dict)
    """What each relay says of this peer, and when it said so."""

    def is_heard(self, now: float) -> bool:
        return self.heard_at is not None and now - self.heard_at < DETECTION


class OverlayPaths:
    """The paths of one node to all its peers."""

    def __init__(self, config: OverlayConfig, routes: PodRoutes, now: float) -> None:
        self._sessions: dict[str, _Session] = {}
        self._own_sightings: dict[str, tuple[Sighting, float]] = {}
        self._announced: dict[str, Sighting] = {}
        self._next_table = now
        self._lan: tuple[str, ...] = ()
        self.revision = 0
        """Counts what may have changed a path: equal revisions, equal AllowedIPs."""
        self.configure(config, routes)

    def configure(self, config: OverlayConfig, routes: PodRoutes) -> None:
        """Take a new description; sessions of peers that stay as they were are not disturbed."""
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
        self._by_probe = {probe_address(peer.address): peer.address for peer in config.peers}
        self._relays = tuple(peer for peer in config.peers if peer.is_relay)

    def announce_lan(self, endpoints: Iterable[str]) -> None:
        """Under which addresses of its own network this node can be tried by others behind the same NAT."""
        self._lan = tuple(endpoints)

    def observe(self, endpoints: Mapping[str, str | None]) -> None:
        """Where WireGuard sees the peers now, by public key."""
        for session in self._sessions.values():
            session.endpoint = endpoints.get(session.peer.public_key) or session.endpoint

    def restarted(self, now: float) -> None:
        """The interface was made anew: no peer has a WireGuard session any more."""
        for session in self._sessions.values():
            self._forget(session, now)

    def receive(self, source: str, message: Message, now: float) -> Actions:
        """A message came from this probe address; unknown senders are left without an answer."""
        address = self._by_probe.get(source)
        if address is None:
            return Actions()
        session = self._sessions[address]
        if isinstance(message, Table):
            return self._learn(session.peer, message, now) if session.peer.is_relay else Actions()
        before = session.state
        newly_heard = not session.is_heard(now)
        session.heard_at = now
        session.remote_state = message.state
        session.remote_sent = message.sent
        session.lan = message.lan
        if message.echo is not None:
            session.rtt_ms = max(0.0, _milliseconds(now) - message.echo - message.held)
        self._advance(session, now)
        outgoing: list[Outgoing] = []
        if newly_heard or session.state != before:
            outgoing.append(self._probe(session, now))
        outgoing += self._announcements(now, whole_for=session if before != UP and session.state == UP else None)
        return Actions(outgoing=tuple(outgoing))

    def tick(self, now: float) -> Actions:
        """What time brings: paths found dead, endpoints to try, what to send. Wanted about every half second."""
        attempts: list[Attempt] = []
        outgoing: list[Outgoing] = []
        for session in self._sessions.values():
            before = session.state
            self._advance(session, now)
            attempt = self._attempt(session, now)
            if attempt is not None:
                attempts.append(attempt)
            is_due = session.is_heard(now) and now - session.sent_at >= INTERVAL * 0.9
            # The other end moves its AllowedIPs when it hears of a change: until then packets are dropped.
            if attempt is not None or session.state != before or is_due:
                outgoing.append(self._probe(session, now))
        outgoing += self._announcements(now)
        return Actions(tuple(attempts), tuple(outgoing))

    def allowed_ips(self, now: float) -> dict[str, tuple[str, ...]]:
        """The AllowedIPs of every peer by its public key; the probe address belongs to the direct peer always."""
        allowed: dict[str, list[str]] = {
            session.peer.public_key: [host_prefix(probe_address(session.peer.address))]
            for session in self._sessions.values()
        }
        for session in self._sessions.values():
            hop = self._next_hop(session, now)
            allowed[hop.public_key] += [
                host_prefix(session.peer.address),
                *self._routes.subnets.get(session.peer.name, ()),
            ]
        return {key: tuple(prefixes) for key, prefixes in allowed.items()}

    def states(self, now: float) -> tuple[PathState, ...]:
        """How each peer is reached, in the order of the configuration."""
        return tuple(self._path_state(session, now) for session in self._sessions.values())

    # Sessions

    def _advance(self, session: _Session, now: float) -> None:
        if not session.is_heard(now) or now < session.hold_until:
            state = DOWN
        elif session.remote_state in (INIT, UP):
            state = UP
        else:
            state = INIT
        if session.state == UP and state != UP:
            self._note_death(session, now)
        elif state == UP and session.state != UP:
            session.up_since = now
            session.attempts = 0
        if session.state != state:
            self.revision += 1
        session.state = state

    def _note_death(self, session: _Session, now: float) -> None:
        """A path that fell silent again and again is left alone for a while, if there is a relay to go by."""
        young = session.up_since is not None and now - session.up_since < YOUNG
        if not session.is_heard(now) and not self._one_is_relay(session.peer):
            session.young_deaths = min(session.young_deaths + 1, len(HOLD_SECONDS) - 1) if young else 0
            session.hold_until = now + HOLD_SECONDS[session.young_deaths]
        session.up_since = None
        session.next_attempt = now

    def _forget(self, session: _Session, now: float) -> None:
        self.revision += 1
        session.state = session.remote_state = DOWN
        session.heard_at = session.up_since = None
        session.attempts = 0
        session.next_attempt = now

    def _attempt(self, session: _Session, now: float) -> Attempt | None:
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
        if session.peer.endpoint is not None:
            return [session.peer.endpoint]
        fresh = [sighting for sighting, at in session.sightings.values() if now - at < SIGHTING_LIFETIME]
        seen = [sighting.endpoint for sighting in fresh if sighting.endpoint]
        lan = [endpoint for sighting in fresh for endpoint in sighting.lan if endpoint not in self._lan]
        own_hosts = {
            endpoint_host(sighting.endpoint) for sighting, _at in self._own_sightings.values() if sighting.endpoint
        }
        same_nat = any(endpoint_host(endpoint) in own_hosts for endpoint in seen)
        last = [session.endpoint] if session.endpoint else []
        return list(dict.fromkeys([*lan, *seen, *last] if same_nat else [*seen, *lan, *last]))

    def _probe(self, session: _Session, now: float) -> Outgoing:
        session.sent_at = now
        echo = session.remote_sent if session.heard_at is not None else None
        held = _milliseconds(now - session.heard_at) if session.heard_at is not None else 0
        probe = Probe(session.state, _milliseconds(now), echo, held, self._lan)
        return Outgoing(session.peer, probe, padded=session.state != UP and not self._one_is_relay(session.peer))

    def _one_is_relay(self, peer: OverlayPeer) -> bool:
        return peer.is_relay or self._config.is_relay

    # Relays' tables

    def _announcements(self, now: float, whole_for: _Session | None = None) -> list[Outgoing]:
        """What this node, if it relays, tells its direct peers about each other: what changed, at times all.

        Who has moved is told all: what was sent to where it was is lost.
        """
        if not self._config.is_relay:
            return []
        current = {
            address: Sighting(address, session.endpoint, session.state == UP, session.lan)
            for address, session in self._sessions.items()
            if session.endpoint is not None or session.state == UP
        }
        changed = [sighting for address, sighting in current.items() if self._announced.get(address) != sighting]
        changed += [
            replace(sighting, is_up=False)
            for address, sighting in self._announced.items()
            if address not in current and address in self._sessions
        ]
        moved = {
            address
            for address, sighting in current.items()
            if address in self._announced and _has_moved(self._announced[address], sighting)
        }
        self._announced = current
        if now >= self._next_table:
            self._next_table = now + TABLE_REFRESH
            changed = list(current.values())
        outgoing = []
        for session in self._sessions.values():
            if session.state == UP:
                is_told_all = session is whole_for or session.peer.address in moved
                rows = list(current.values()) if is_told_all else changed
                outgoing += [Outgoing(session.peer, table) for table in Table.split(rows)]
        return outgoing

    def _learn(self, relay: OverlayPeer, table: Table, now: float) -> Actions:
        for sighting in table.sightings:
            if sighting.address == self._config.address:
                own = self._own_sightings.get(relay.address)
                self._own_sightings[relay.address] = (sighting, now)
                if own is not None and _has_moved(own[0], sighting):
                    for other in self._sessions.values():
                        self._try_anew(other, now)
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
                self._try_anew(session, now)
            elif not session.is_heard(now) and set(self._candidates(session, now)) - set(before):
                session.attempts = 0
                session.next_attempt = now
        return Actions()

    def _try_anew(self, session: _Session, now: float) -> None:
        """One end of this pair is elsewhere, or its NAT is another: both ends are told, and both try at once."""
        session.hold_until = min(session.hold_until, now + SETTLE)
        if not session.is_heard(now):
            session.attempts = 0
            session.next_attempt = now

    # The choice

    def _next_hop(self, session: _Session, now: float) -> OverlayPeer:
        """The peer that gets the destination's packets: both ends of a pair come to the same relay by the same rule."""
        if session.state == UP:
            return session.peer
        usable = [relay for relay in self._relays if relay is not session.peer and self._is_up(relay)]
        for relay in usable:
            sighting = session.sightings.get(relay.address)
            if sighting is not None and sighting[0].is_up and now - sighting[1] < SIGHTING_LIFETIME:
                return relay
        if session.peer.is_relay or self._config.is_relay:
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
    """Whether a relay sees a node at another endpoint than before."""
    return now.endpoint is not None and before.endpoint not in (None, now.endpoint)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
