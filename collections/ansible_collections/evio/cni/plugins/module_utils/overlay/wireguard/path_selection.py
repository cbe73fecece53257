# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Path selection: whether each peer of the overlay is reached directly or through a relay, and which endpoint to try.

Pure: a state machine that is given messages, packets' destinations and the time. Sockets, WireGuard and routes are the
agent's work. Cost follows traffic: peers with which nobody talks are reached through the first relay that is up, by one
AllowedIP for all of them, and cost nothing. The first packet to a peer lets both nodes try the direct path.
docs/overlay-paths.md shows it on a page; what one session does is session's subject.

WireGuard drops a packet if its source is not among the AllowedIPs of the peer that sent it, so it matters more that
both ends of a pair choose the same path than that they are quick.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

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
from .messages import DOWN, MOST_RELAYS, Call, FormerProbe, FormerTable, Message, Probe, Rekey
from .session import ANSWER_GAP, CALL_SECONDS, FORMER, PRESENT, Session, milliseconds

TICK = 0.5
IDLE_TICK = 2.0
"""Seconds between two calls of tick() at most while nothing is in a hurry, and while no path is in use."""

ATTEMPT_SECONDS = (1.5,) * 4 + (5.0,) * 10 + (15.0,)
"""Seconds for which an endpoint is tried, by the number of attempts before; the last value stays. Short at first, then
WireGuard's own interval between handshakes (REKEY_TIMEOUT), after a minute 15 s: less than the 30 s for which a NAT
keeps an unanswered UDP mapping."""

REKEY_NOTICES = 3
"""Times that a peer is told that this node changes its key: a notice may be lost."""

REKEY_SECONDS = 3.0
"""Seconds after such a notice for which the peer's handshake with its next key is looked for closely."""

REKEY_GAP = 30.0
"""Seconds for which further notices of the peer change nothing: each costs CPU time."""

RELAYS_ATTEMPTS = 4
"""Attempts of a relay for a node that it has no packets for: nodes come to their relays by themselves."""

CALL_AGAIN_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
"""Seconds between two calls for a peer that is used but not reached directly, by the calls before; the last stays."""

NOTICE_SECONDS = 1.0
NOTICE_GAP = 0.1
"""Seconds for which a peer is told by calls that its direct path was left, until it answers; and between two calls."""

CALL_ANSWER_GAP = 0.1
"""Seconds between two answers to calls of one peer."""

SIGHTING_LIFETIME = 40.0
"""Seconds for which an endpoint that came with a call is tried."""

OWN_ENDPOINT_GAP = 1.0
"""Seconds between two of this node's endpoints that a relay may report: each lets it try all direct paths again."""

CALLS_AT_ONCE = 250.0
CALLS_PER_SECOND = 10.0
"""Calls of one node that a relay passes on, each to one target."""

RELAYS_CALLS = 20.0
"""So many times more calls are passed on that come from another relay, which has them from its nodes."""

FORMER_TABLE_SECONDS = 10.0
"""Seconds between two tables for a node of a former version, for which a table counts for 30 s."""

MOST_SESSIONS = 256
"""Peers that are no relays with which this node keeps sessions at once. Others are reached through relays."""


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
    key: str
    """The public key that the peer is taken to have."""


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
    is_wanted: bool
    """Whether a direct path is kept or tried; a peer with which nobody talks has none."""
    key: str
    """The public key that the peer is taken to have."""


class OverlayPaths:
    """The paths of one node to all its peers."""

    def __init__(self, config: OverlayConfig, routes: PodRoutes, now: float) -> None:
        self._sessions: dict[str, Session] = {}
        """The sessions that are kept, by the peer's address: those with a relay in them, and those in use."""
        self._own_endpoints: dict[str, tuple[str, float]] = {}
        """Where each relay sees this node, and when it said so first."""
        self._lan: tuple[str, ...] = ()
        self._has_former = False
        self._all_used = False
        self._resolved: dict[str, tuple[str, ...]] = {}
        self._hurry = float("inf")
        self._is_idle = False
        self._interval = 0.0
        self._up_relays: tuple[OverlayPeer, ...] = ()
        self.revision = 0
        """Counts the events that may change a path: as long as it is equal, allowed_ips() is equal."""
        self.configure(config, routes, now)

    def configure(self, config: OverlayConfig, routes: PodRoutes, now: float) -> None:
        """Use this configuration from now on; peers whose address and key are the same keep their sessions.

        So do peers that get a next key, and peers that have changed to the key that is their only one now.
        """
        self.revision += 1
        self._config = config
        self._routes = routes
        self._peers = {peer.address: peer for peer in config.peers}
        self._by_key = {key: peer.address for peer in config.peers for key in peer.public_keys}
        self._relays = tuple(peer for peer in config.peers if peer.is_relay)
        self._keep_sessions(now)
        named = {peer.endpoint for peer in config.peers if peer.endpoint is not None and is_named(peer.endpoint)}
        self._resolved = {endpoint: found for endpoint, found in self._resolved.items() if endpoint in named}
        former = Counter(former_probe_address(address) for address in (config.address, *self._peers))
        self._former = {
            peer.address: former_probe_address(peer.address)
            for peer in config.peers
            # In a host overlay of more than 65536 addresses, two nodes may have the same.
            if former[former_probe_address(peer.address)] == 1
        }
        self._by_probe = {probe: address for address, probe in self._former.items()}
        self._by_probe.update({probe_address(peer.address): peer.address for peer in config.peers})
        self._networks = [ip_network(cidr) for cidr in (config.host_cidr, *routes.pod_cidrs)]
        self._set_pod_owners()
        own = [ip_network(cidr) for cidr in (host_prefix(config.address), *routes.subnets.get(config.node, ()))]
        # Nobody else may send from this node's addresses, not even a relay.
        self._shared_prefixes = tuple(str(part) for network in self._networks for part in _without(network, own))
        for gone in self._own_endpoints.keys() - {relay.address for relay in self._relays}:
            del self._own_endpoints[gone]
        self._look_at_relays(now)

    def use_former_probe_addresses(self, is_used: bool) -> None:
        """Set whether this node has its former probe address, and so hears nodes of former versions."""
        if is_used != self._has_former:
            self.revision += 1
        self._has_former = is_used

    @property
    def has_former_peers(self) -> bool:
        """Whether a relay, on a relay any peer, or a peer that is heard was not yet heard at its present address."""
        return not all(
            session.is_current
            for session in self._sessions.values()
            if session.is_lasting or session.heard_at is not None
        )

    def is_former(self, peer: OverlayPeer) -> bool:
        """Return whether messages for the peer are sent to its former probe address as well."""
        session = self._sessions.get(peer.address)
        return self._has_former and (session is None or not session.is_current)

    def set_addresses(self, endpoint: str, found: Iterable[str], now: float) -> None:
        """Set ``address:port`` of each address that a relay's ``name:port`` has. A relay that is not heard is tried."""
        usable = tuple(address for address in found if self._is_outside(address))
        is_new = set(usable) != set(self._resolved.get(endpoint, ()))
        self._resolved[endpoint] = usable
        for session in self._sessions.values():
            if is_new and session.peer.endpoint == endpoint and session.heard_at is None:
                session.attempts = 0
                session.next_attempt = now

    def unreached_endpoints(self) -> set[str]:
        """Return the endpoints of the relays that are not heard: their names may have other addresses by now."""
        return {
            session.peer.endpoint
            for session in self._sessions.values()
            if session.peer.endpoint is not None and session.heard_at is None
        }

    def relay_endpoints(self) -> list[str]:
        """Return ``address:port`` of every relay, as far as their names have addresses."""
        return [endpoint for relay in self._relays for endpoint in self._fixed_endpoints(relay)]

    def announce_lan(self, endpoints: Iterable[str]) -> None:
        """Set this node's endpoints in its own network, which nodes behind the same NAT try."""
        self._lan = tuple(endpoints)

    def observe(self, endpoints: Mapping[str, str | None]) -> None:
        """Set the endpoints at which WireGuard sees the peers now, by public key; None leaves the last endpoint."""
        for key, seen in endpoints.items():
            session = self._sessions.get(self._by_key.get(key, ""))
            if seen is None or session is None or key != session.key or seen == session.endpoint:
                continue
            # An endpoint that other nodes cannot use, such as fe80::1%eth0, is neither reported nor tried.
            if usable_endpoint(seen) == seen and self._is_outside(seen):
                session.endpoint = seen

    def note_handshakes(self, handshakes: Mapping[str, int]) -> None:
        """Note the latest handshakes by public key, in seconds since 1970, for the peers that are changing their keys.

        It shows that a peer has changed if its notice was lost. A peer that is heard never goes back to its former key.
        Each handshake counts once: the peer may change afterwards. One with a peer that is not heard has begun a
        session, over which the peer is asked, and the next attempt keeps to the key.
        """
        for session in self._sessions.values():
            if session.peer.next_public_key is None:
                continue
            latest = {key: handshakes.get(key, 0) for key in session.peer.public_keys}
            # WireGuard forgets the time with the session that an attempt replaces: that is no handshake.
            new = {key: at for key, at in latest.items() if at and at != session.handshakes.get(key)}
            if not new:
                continue
            session.handshakes = {key: new.get(key) or session.handshakes.get(key, 0) for key in latest}
            session.has_answered = True
            if session.heard_at is None:
                session.greet()
            former, following = latest.values()
            if following and following >= former:
                self._use_key(session, session.peer.next_public_key)
            elif former > following and not session.is_heard:
                self._use_key(session, session.peer.public_key)

    def announce_key(self) -> Actions:
        """Return what tells the peers that this node changes to its next key now, right before it does.

        Each peer then looks for the handshake with that key, and gives it the AllowedIPs. Until then it sends with the
        old session, which this node's WireGuard still reads. A peer that sent a handshake of its own would lose both:
        WireGuard drops two that cross each other, and tries again after 5 s.
        """
        known = [session for session in self._sessions.values() if session.is_configured]
        return Actions(outgoing=tuple(Outgoing(session.peer, Rekey()) for session in known) * REKEY_NOTICES)

    def begin_sessions(self, now: float) -> Actions:
        """Return what lets WireGuard begin a session with each peer at once, after this node has changed its key."""
        known = [session for session in self._sessions.values() if session.is_configured]
        return Actions(outgoing=tuple(o for session in known for o in self._probes(session, now, is_poll=True)))

    def expects_handshake(self, now: float) -> bool:
        """Return whether a peer has just said that it changes its key, and its handshake was not seen yet."""
        return any(
            session.awaits_key and now - session.rekeyed_at < REKEY_SECONDS for session in self._sessions.values()
        )

    @property
    def awaits_keys(self) -> bool:
        """Whether a peer that WireGuard knows is going to change to its next key."""
        return any(session.awaits_key and session.is_configured for session in self._sessions.values())

    def resume(self, allowed_ips: Mapping[str, Iterable[str]], now: float) -> None:
        """Begin with a device that an agent before has left.

        ``allowed_ips`` are the AllowedIPs of the peers, by their keys, with which it has WireGuard sessions. A path
        that packets take counts as up: the other end still uses it, and its agent may be restarting, too. If nothing is
        heard, it ends as any other. All these peers are asked before their sessions are replaced.
        """
        for key, prefixes in allowed_ips.items():
            address = self._by_key.get(key)
            session = None if address is None else self._session(address)
            if address is None or session is None:
                continue
            own = {host_prefix(probe_address(address)), host_prefix(former_probe_address(address))}
            if session.peer.is_relay and not self._config.is_relay:
                # A relay has its own prefixes, up or not.
                own |= {host_prefix(address), *self._routes.subnets.get(session.peer.name, ())}
            session.called_at = now if not session.is_lasting else session.called_at
            is_up = not own.issuperset(prefixes)
            if is_up:
                session.key = key
            session.resume(now, is_up=is_up)
            session.next_attempt = now + ATTEMPT_SECONDS[0]
        self._look_at_relays(now)
        self.revision += 1

    def restarted(self, now: float) -> None:
        """Forget all sessions: the interface was created again, and no peer has a WireGuard session any more."""
        self.revision += 1
        for session in self._sessions.values():
            session.restart(now)
        self._look_at_relays(now)

    def assume_all_used(self, is_so: bool, now: float) -> None:
        """Set whether direct paths are kept with all peers: what they are sent is not known on this node."""
        self._all_used = is_so
        if is_so:
            self.used(self._peers, now)

    @property
    def has_wanted(self) -> bool:
        """Whether a session is wanted by one of its ends: nodes wait for what this node knows of their endpoints."""
        return any(session.told_wanted or session.remote_wanted for session in self._sessions.values())

    def sender(self, source: str) -> OverlayPeer | None:
        """Return the peer that has this probe address; None if no peer has it."""
        address = self._by_probe.get(source)
        return None if address is None else self._peers[address]

    def used(self, destinations: Iterable[str], now: float) -> Actions:
        """Note that this node or its pods send to these addresses of nodes and pods, and try their direct paths.

        Addresses of nobody are ignored.
        """
        for destination in destinations:
            address = self._owner_of(destination)
            session = None if address is None else self._session(address)
            if session is None:
                continue
            session.used_at = now
            self._want(session, now)
        return self.tick(now)

    def receive(self, source: str, message: Message, now: float) -> Actions:
        """Process a message that came from this probe address; a message of an unknown sender is ignored."""
        address = self._by_probe.get(source)
        if address is None or isinstance(message, FormerTable):
            return Actions()
        session = self._session(address)
        if session is None:
            return Actions()
        if source == probe_address(address):
            session.is_current = True
        before = self.revision
        session.rests = 0.0
        if isinstance(message, Rekey):
            if session.awaits_key and now - session.rekeyed_at >= REKEY_GAP:
                session.rekeyed_at = now
            actions = Actions()
        elif isinstance(message, Call):
            session.speaks, session.present_at = PRESENT, now
            actions = self._receive_call(session, message, now)
        else:
            actions = Actions(outgoing=tuple(self._receive_probe(session, message, now)))
            session.rests = session.rests_until(now)
        self._set_interval(session.rests if self.revision == before else now, now)
        return actions

    def tick(self, now: float) -> Actions:
        """Process the passing of time: dead paths, endpoints to try, messages that are due."""
        attempts: list[Attempt] = []
        outgoing: list[Outgoing] = []
        self._hurry = float("inf")
        if self._all_used:
            self._note_all_used(now)
        self._note_carriers(now)
        for session in list(self._sessions.values()):
            if now < session.rests:
                continue
            if not session.is_kept(now):
                outgoing += self._close(session, now)
                continue
            before = session.state
            self._advance(session, now)
            attempt = self._attempt(session, now)
            if attempt is not None:
                attempts.append(attempt)
            # The other end moves its AllowedIPs once it hears of a change; until then WireGuard drops packets.
            if attempt is not None or session.state != before or session.is_due(now):
                outgoing += self._probes(session, now, is_poll=True)
            self._hurry = min(self._hurry, NOTICE_GAP if _is_telling(session, now) else session.hurry(now))
            session.rests = session.rests_until(now)
        self._is_idle = True
        self._set_interval(min((session.rests for session in self._sessions.values()), default=math.inf), now)
        outgoing += self._former_tables(now)
        outgoing += self._calls(now)
        return Actions(tuple(attempts), tuple(outgoing))

    @property
    def interval(self) -> float:
        """Seconds from the last call of tick(), used() or receive() until tick() must be called at the latest."""
        return min(self._hurry, self._interval)

    @property
    def is_idle(self) -> bool:
        """Whether no path is in use, and none is tried."""
        return self._is_idle

    def _set_interval(self, rests_until: float, now: float) -> None:
        """Set the interval without hurry; no path is in use if none was, and the sessions rest until a later time."""
        self._is_idle = self._is_idle and rests_until > now
        self._interval = min(IDLE_TICK, rests_until - now) if self._is_idle else TICK

    def allowed_ips(self) -> dict[str, tuple[str, ...]]:
        """Return the AllowedIPs of the peers that WireGuard has to know, by their public keys.

        The first relay that is up has the networks of all; a peer with a path of its own has its own prefixes, and
        the longest prefix counts. A probe address always belongs to its own node.
        """
        allowed: dict[str, list[str]] = {}
        for address, session in self._sessions.items():
            if session.is_configured:
                allowed[session.key] = [host_prefix(probe_address(address))]
                if self._has_former and address in self._former:
                    allowed[session.key].append(host_prefix(self._former[address]))
                if session.other_key is not None:
                    # Without AllowedIPs WireGuard answers its handshakes and takes none of its packets.
                    allowed[session.other_key] = []
        default = self._default_relay()
        own: set[str] = set()
        for session in self._sessions.values():
            hop = self._next_hop(session)
            if hop is not default and (key := self._sessions[hop.address].key) in allowed:
                prefixes = [host_prefix(session.peer.address), *self._routes.subnets.get(session.peer.name, ())]
                allowed[key] += prefixes
                own.update(prefixes)
        if default is not None:
            shared = [prefix for prefix in self._shared_prefixes if prefix not in own]
            allowed[self._sessions[default.address].key] += shared
        return {key: tuple(prefixes) for key, prefixes in allowed.items()}

    def former_keys(self) -> dict[str, str]:
        """Return the key that a peer had, by the key that it is taken to have, of peers with two keys."""
        return {session.key: other for session in self._sessions.values() if (other := session.other_key) is not None}

    def states(self, now: float) -> tuple[PathState, ...]:
        """Return how each peer is reached, in the order of the configuration."""
        name = self.default_path()
        return tuple(
            self._path_state(self._sessions[peer.address], now)
            if peer.address in self._sessions
            else PathState(peer, name, None, False, peer.public_key)
            for peer in self._config.peers
        )

    def default_path(self) -> str | None:
        """Return the name of the relay that reaches the peers without a path of their own; None if there is none."""
        default = self._default_relay()
        return default.name if default is not None and self._is_up(default) else None

    def kept_states(self, now: float) -> tuple[PathState, ...]:
        """Return how the peers are reached that have a path of their own: relays, and the peers in use."""
        return tuple(self._path_state(session, now) for session in self._sessions.values())

    # Sessions

    def _keep_sessions(self, now: float) -> None:
        """Keep the sessions of peers that stay the same, and begin the sessions that last."""
        kept = self._sessions
        self._sessions = {}
        for peer in self._peers.values():
            session = kept.get(peer.address)
            is_lasting = peer.is_relay or self._config.is_relay or not self._relays
            is_same = session is not None and session.key in peer.public_keys
            if session is not None and is_same and session.is_lasting == is_lasting:
                session.peer = peer
                session.rests = 0.0
                self._sessions[peer.address] = session
            elif is_lasting:
                self._sessions[peer.address] = self._new_session(peer, is_lasting)
                self._sessions[peer.address].next_attempt = now

    def _new_session(self, peer: OverlayPeer, is_lasting: bool) -> Session:
        if peer.is_relay != self._config.is_relay:
            drives = peer.is_relay
        else:
            drives = ip_address(self._config.address) < ip_address(peer.address)  # type: ignore[operator]
        return Session(peer, is_lasting, drives, is_configured=is_lasting)

    def _session(self, address: str) -> Session | None:
        """Return the session with the peer of this address, a new session if there was none.

        None if the address is no peer's, or so many sessions are kept that this peer stays behind its relay.
        """
        session = self._sessions.get(address)
        if session is not None or address not in self._peers or len(self._sessions) >= self._most_sessions:
            return session
        session = self._sessions[address] = self._new_session(self._peers[address], is_lasting=False)
        return session

    def _use_key(self, session: Session, key: str) -> None:
        """Take the peer to have this key: its AllowedIPs go to it."""
        if key != session.key:
            session.key = key
            session.rekeyed_at = -math.inf
            session.rests = 0.0
            self.revision += 1

    @property
    def _most_sessions(self) -> int:
        return len(self._peers) if self._all_used else MOST_SESSIONS + len(self._relays)

    def _advance(self, session: Session, now: float) -> None:
        if not session.advance(now):
            return
        self.revision += 1
        if session.peer.is_relay:
            self._look_at_relays(now)
        if not session.is_up():
            self._want(session, now)

    def _want(self, session: Session, now: float) -> None:
        """Call the peer soon, if it is used and not reached directly, or if the direct path was just left."""
        session.rests = 0.0
        if (
            (session.is_used(now) or _is_telling(session, now))
            and not session.is_up()
            and session.next_call == float("inf")
        ):
            session.next_call = now
            session.calls = 0

    def _note_all_used(self, now: float) -> None:
        for session in self._sessions.values():
            session.used_at = now
            self._want(session, now)

    def _close(self, session: Session, now: float) -> list[Outgoing]:
        """End a session that neither end wants, and forget it some time later."""
        if session.is_open:
            was_heard = session.heard_at is not None
            session.close(now)
            self.revision += 1
            return self._probes(session, now, is_poll=False) if was_heard else []
        if session.is_forgettable(now):
            del self._sessions[session.peer.address]
            self.revision += 1
        return []

    def _receive_probe(self, session: Session, message: Probe | FormerProbe, now: float) -> list[Outgoing]:
        before, newly_heard = session.state, session.heard_at is None
        session.hear(message, now)
        if not session.is_configured:
            session.is_configured = True
            self.revision += 1
        if not session.is_kept(now):
            session.close(now)
            self.revision += 1
            return self._probes(session, now, is_poll=False) if message.state != DOWN else []
        if isinstance(message, FormerProbe):
            if message.lan:
                session.sightings[session.peer.address] = (None, message.lan, now)
        elif message.seen is not None and session.peer.is_relay:
            self._learn_own_endpoint(session.peer, message.seen, now)
        self._advance(session, now)
        self._hurry = min(self._hurry, session.hurry(now))
        is_changed = newly_heard or session.state != before
        is_asked = isinstance(message, Probe) and message.is_poll and now - session.sent_at >= ANSWER_GAP
        return self._probes(session, now, is_poll=False) if is_changed or is_asked else []

    def _probes(self, session: Session, now: float, *, is_poll: bool) -> list[Outgoing]:
        seen = session.endpoint if self._config.is_relay and not session.peer.is_relay else None
        # It shows that the direct path carries the overlay's MTU, before the path is used.
        is_padded = not session.is_up() and not session.is_lasting
        messages = session.probes(now, is_poll=is_poll, seen=seen, lan=self._lan)
        return [Outgoing(session.peer, message, is_padded) for message in messages]

    # Endpoints to try

    def _attempt(self, session: Session, now: float) -> Attempt | None:
        """Return the next attempt if it is due: the peer's possible endpoints are tried in turn."""
        if session.heard_at is not None or now < session.next_attempt:
            return None
        is_nodes_turn = self._config.is_relay and not session.peer.is_relay and not session.is_wanted(now)
        if is_nodes_turn and session.attempts >= RELAYS_ATTEMPTS:
            return None
        candidates = self._candidates(session, now)
        if not candidates:
            return None
        endpoint = candidates[session.attempts % len(candidates)]
        is_next_round = session.attempts > 0 and session.attempts % len(candidates) == 0
        if session.other_key is not None and is_next_round and not session.has_answered:
            self._use_key(session, session.other_key)
        session.has_answered = False
        session.next_attempt = now + ATTEMPT_SECONDS[min(session.attempts, len(ATTEMPT_SECONDS) - 1)]
        session.attempts += 1
        session.is_greeting = False
        if not session.is_configured:
            session.is_configured = True
            self.revision += 1
        return Attempt(session.peer, endpoint, session.key)

    def _candidates(self, session: Session, now: float) -> list[str]:
        """Return the endpoints at which the peer may be reached, the most likely first."""
        if fixed := self._fixed_endpoints(session.peer):
            return fixed
        fresh = [(seen, lan) for seen, lan, at in session.sightings.values() if now - at < SIGHTING_LIFETIME]
        seen = [endpoint for endpoint, _lan in fresh if endpoint and self._is_outside(endpoint)]
        lan = [
            endpoint
            for _seen, endpoints in fresh
            for endpoint in endpoints
            if endpoint not in self._lan and self._is_outside(endpoint)
        ]
        own_hosts = {endpoint_host(endpoint) for endpoint, _at in self._own_endpoints.values()}
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

    def _learn_own_endpoint(self, relay: OverlayPeer, seen: str, now: float) -> None:
        """Take over where a relay sees this node. If it has moved, both ends of each pair in use try again."""
        known = self._own_endpoints.get(relay.address)
        if known is not None and (known[0] == seen or now - known[1] < OWN_ENDPOINT_GAP):
            return
        self._own_endpoints[relay.address] = (seen, now)
        if known is not None:
            for session in self._sessions.values():
                if not session.is_lasting and session.is_kept(now):
                    self._retry(session, now)
                    self._call_again(session, now)

    def _retry(self, session: Session, now: float) -> None:
        """Try the direct path again: one end has moved. The call tells the other end, so that both try at once."""
        session.hold_briefly(now)
        if session.heard_at is None:
            session.attempts = 0
            session.next_attempt = now
            session.rests = 0.0

    # Calls

    def _calls(self, now: float) -> list[Outgoing]:
        """Return calls for the peers that are used but not reached directly, one call to each relay for many peers."""
        relays = [relay for relay in self._up_relays if self._sessions[relay.address].speaks == PRESENT]
        due = [session for session in self._sessions.values() if session.next_call <= now]
        if not relays:
            return []
        for session in due:
            if _is_telling(session, now):
                session.next_call = now + NOTICE_GAP
                continue
            wait = CALL_AGAIN_SECONDS[min(session.calls, len(CALL_AGAIN_SECONDS) - 1)]
            session.next_call = now + wait if session.is_used(now) else float("inf")
            session.calls += 1
        outgoing = []
        for relay in relays:
            for sent in (milliseconds(now), 0):
                targets = tuple(
                    session.peer.address
                    for session in due
                    if session.peer is not relay and (session.heard_at is None) == (sent > 0)
                )
                outgoing += [Outgoing(relay, call) for call in self._own_call(targets, sent=sent).split(self._largest)]
        return outgoing

    def _former_tables(self, now: float) -> list[Outgoing]:
        """Return what a relay tells the nodes of former versions: they choose among the relays by it."""
        due = [
            session
            for session in (self._sessions.values() if self._config.is_relay and not self._is_idle else ())
            if session.speaks == FORMER and session.is_up() and now - session.table_at >= FORMER_TABLE_SECONDS
        ]
        if not due:
            return []
        reached = FormerTable(tuple((s.peer.address, s.endpoint) for s in self._sessions.values() if s.is_up()))
        for session in due:
            session.table_at = now
        return [Outgoing(session.peer, table) for session in due for table in reached.split(self._largest)]

    @property
    def _largest(self) -> int:
        return self._config.mtu - UDP_HEADERS

    def _own_call(self, targets: tuple[str, ...], *, is_answer: bool = False, sent: int = 0) -> Call:
        relays = tuple(relay.address for relay in self._up_relays[:MOST_RELAYS])
        return Call(self._config.address, targets, relays, None, self._lan, is_answer, sent)

    def _note_carriers(self, now: float) -> None:
        """Let the relays be watched closely that carry the packets of pairs in use."""
        for session in self._sessions.values() if not self._config.is_relay else ():
            if session.is_up() or not (session.is_used(now) or now - session.called_at < CALL_SECONDS):
                continue
            hop = self._next_hop(session)
            if hop is not session.peer:
                carrier = self._sessions[hop.address]
                carrier.carried_at = now
                carrier.rests = 0.0

    def _call_again(self, session: Session, now: float) -> None:
        """Tell the peer soon what has changed here, if packets to it take a relay."""
        if session.is_wanted(now) and not session.is_up():
            session.next_call = now
            session.calls = 0

    def _receive_call(self, sender: Session, call: Call, now: float) -> Actions:
        """Process a call that a relay passes on, and pass on a call that is for others."""
        if call.caller != sender.peer.address and not sender.peer.is_relay:
            return Actions()
        attempts: list[Attempt] = []
        outgoing: list[Outgoing] = []
        caller = self._session(call.caller) if self._config.address in call.targets else None
        if caller is not None and sender.peer.is_relay:
            outgoing += self._receive_own_call(caller, sender.peer, call, now)
            attempt = self._attempt(caller, now) if caller.is_kept(now) else None
            if attempt is not None:
                attempts.append(attempt)
                outgoing += self._probes(caller, now, is_poll=True)
        if self._config.is_relay:
            for target in call.targets:
                outgoing += self._pass_on(sender, call, target, now)
        return Actions(tuple(attempts), tuple(outgoing))

    def _receive_own_call(self, caller: Session, relay: OverlayPeer, call: Call, now: float) -> list[Outgoing]:
        """Learn from a call for this node how its caller is reached, and return the answer."""
        caller.rests = 0.0
        before = self._next_hop(caller)
        if call.relays:
            caller.note_call(call.sent)
            self._learn_caller(caller, relay, call, now)
        else:
            caller.absent_at |= {relay.address}
        self._advance(caller, now)
        self._hurry = min(self._hurry, caller.hurry(now))
        if self._next_hop(caller) is not before:
            self.revision += 1
        if call.is_answer or now - caller.answered_at < CALL_ANSWER_GAP:
            return []
        caller.answered_at = now
        return [Outgoing(relay, each) for each in self._own_call((call.caller,), is_answer=True).split(self._largest)]

    def _learn_caller(self, session: Session, relay: OverlayPeer, call: Call, now: float) -> None:
        session.speaks, session.present_at = PRESENT, now
        session.called_at = now
        session.absent_at -= {relay.address}
        session.remote_relays = call.relays
        before = set(self._candidates(session, now))
        known = session.sightings.get(relay.address)
        session.sightings[relay.address] = (call.endpoint, call.lan, now)
        if known is not None and known[0] not in (None, call.endpoint):
            self._retry(session, now)
        elif session.heard_at is None and set(self._candidates(session, now)) - before:
            session.attempts = 0
            session.next_attempt = now

    def _pass_on(self, sender: Session, call: Call, target: str, now: float) -> list[Outgoing]:
        """Return what a relay makes of a call for this target: to the target, to other relays, or a refusal."""
        callee = self._sessions.get(target)
        if callee is None or target == call.caller or not _takes_token(sender, now):
            return []
        if call.caller != sender.peer.address:
            self._learn_way_back(call)
        endpoint = sender.endpoint if call.caller == sender.peer.address else call.endpoint
        passed = replace(call, targets=(target,), endpoint=endpoint)
        if callee.is_up():
            return [Outgoing(callee.peer, passed)] if callee.speaks != FORMER and callee is not sender else []
        if sender.peer.is_relay and call.caller != sender.peer.address:
            return []
        # The caller asks the relays that it reaches by itself.
        others = [relay for relay in self._up_relays if relay.address not in (*call.relays, target, call.caller)]
        outgoing = [Outgoing(relay, passed) for relay in others]
        return [*outgoing, Outgoing(sender.peer, Call(target, (call.caller,), is_answer=True))]

    def _learn_way_back(self, call: Call) -> None:
        """Note by which relays a node is reached, of which another relay passes on a call."""
        caller = self._sessions.get(call.caller)
        if caller is not None and not caller.is_up() and caller.remote_relays != call.relays:
            caller.remote_relays = call.relays
            self.revision += 1

    # Next hops

    def _look_at_relays(self, now: float) -> None:
        """Note which relays are up. If others are than before, pairs in use tell each other."""
        up = tuple(relay for relay in self._relays if self._is_up(relay))
        if up == self._up_relays:
            return
        self._up_relays = up
        self.revision += 1
        for session in self._sessions.values():
            self._call_again(session, now)

    def _default_relay(self) -> OverlayPeer | None:
        """Return the relay through which the peers are reached that have no path of their own; a relay has none.

        All nodes have the relays in the same order, that of their addresses, so both ends of a pair choose the same.
        """
        if self._config.is_relay or not self._relays:
            return None
        return self._up_relays[0] if self._up_relays else self._relays[0]

    def _next_hop(self, session: Session) -> OverlayPeer:
        """Return the peer that gets the packets for this session's peer: itself, or a relay."""
        if session.is_up():
            return session.peer
        usable = [relay for relay in self._up_relays if relay is not session.peer]
        for relay in usable:
            if relay.address in session.remote_relays:
                return relay
        if session.is_lasting:
            return usable[0] if usable and session.remote_relays else session.peer
        reaching = [relay for relay in usable if relay.address not in session.absent_at]
        return next(iter([*reaching, *usable, *self._relays]), session.peer)

    def _is_up(self, peer: OverlayPeer) -> bool:
        return self._sessions[peer.address].is_up()

    def _path_state(self, session: Session, now: float) -> PathState:
        hop = self._next_hop(session)
        path = None
        if hop is not session.peer:
            path = hop.name if self._is_up(hop) and hop.address not in session.absent_at else None
        elif session.is_up():
            path = DIRECT
        rtt_ms = session.rtt_ms if session.is_up() else None
        return PathState(session.peer, path, rtt_ms, session.is_kept(now), session.key)

    # Addresses

    def _set_pod_owners(self) -> None:
        """Index the pod subnets by IP version, prefix length and network address."""
        self._pod_owners: dict[tuple[int, int, int], str] = {}
        addresses = {peer.name: peer.address for peer in self._config.peers}
        for name, cidrs in self._routes.subnets.items():
            for cidr in cidrs if name in addresses else ():
                subnet = ip_network(cidr)
                self._pod_owners[subnet.version, subnet.prefixlen, int(subnet.network_address)] = addresses[name]
        self._pod_lengths = {key[:2] for key in self._pod_owners}

    def _owner_of(self, destination: str) -> str | None:
        """Return the host overlay address of the peer that has this address, or whose pod has it."""
        if destination in self._peers:
            return destination
        address = ip_address(destination)
        for version, length in self._pod_lengths:
            if version == address.version:
                host_bits = address.max_prefixlen - length
                owner = self._pod_owners.get((version, length, int(address) >> host_bits << host_bits))
                if owner is not None:
                    return owner
        return None


def _is_telling(session: Session, now: float) -> bool:
    """Return whether the peer is told that this node has left the direct path to it."""
    return now - session.left_at < NOTICE_SECONDS


def _takes_token(sender: Session, now: float) -> bool:
    """Return whether another call of this sender is passed on, and count it."""
    factor = RELAYS_CALLS if sender.peer.is_relay else 1.0
    left, at = sender.forwarded or (CALLS_AT_ONCE * factor, now)
    left = min(CALLS_AT_ONCE * factor, left + (now - at) * CALLS_PER_SECOND * factor)
    sender.forwarded = (left - 1.0 if left >= 1.0 else left, now)
    return left >= 1.0


def _without(
    network: IPv4Network | IPv6Network, holes: Iterable[IPv4Network | IPv6Network]
) -> list[IPv4Network | IPv6Network]:
    """Return the network as parts, without the networks that are cut out."""
    parts = [network]
    for hole in holes:
        divided: list[IPv4Network | IPv6Network] = []
        for part in parts:
            if part.version != hole.version or not part.overlaps(hole):
                divided.append(part)
            elif hole.prefixlen > part.prefixlen:
                divided += part.address_exclude(hole)  # type: ignore[arg-type]
        parts = divided
    return parts
