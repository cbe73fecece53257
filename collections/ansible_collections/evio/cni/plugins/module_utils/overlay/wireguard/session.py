# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The session of this node with one peer over the direct path: why it is kept, whether it is up, when it sends.

Pure, after BFD (RFC 5880 section 6.2): a session is up when both ends hear each other. A node keeps sessions with its
relays always, and with another node only while one of the two has something to say to the other. One end sends probes
and the other answers; a probe that is missing lets both ends ask quickly before the path counts as dead. Which path a
peer's packets take is path_selection's subject.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .config import OverlayPeer
from .messages import DOWN, INIT, UP, FormerProbe, Message, Probe

INTERVAL = 1.0
"""Seconds between two probes of a session that is wanted, from the end that drives it."""

ANSWERING_INTERVAL = 1.25
"""Seconds after which the other end of such a session sends by itself: usually it only answers."""

SLOW_INTERVAL = 10.0
"""Seconds between two probes of a node to a relay that neither end needs now: the NAT's mapping stays open."""

GREETING_INTERVAL = 0.5
"""Seconds between two probes to a peer with which WireGuard has a session, until it answers or is tried anew."""

GREETINGS = 10
"""Such probes at most: the peer may have WireGuard and no agent."""

EARLINESS = 0.1
"""Seconds by which a probe may be sent too early: the next look at the session would be too late."""

LATE = 1.4
SLOW_LATE = SLOW_INTERVAL + 1.0
"""Seconds without a probe after which the end that waits for it asks for it, wanted and not."""

HURRY = 0.1
LAST_HURRY = 0.05
"""Seconds between two such questions, and in the last LAST_SECONDS before the path counts as dead. All of them, or
their answers, must be lost; docs/overlay-paths.md says how often that happens by mistake."""

LAST_SECONDS = 1.25

SLOW_HURRY = 0.2
"""The same at a node for a relay that neither end needs now."""

DETECTION = 3.5
"""Seconds without a probe after which a direct path counts as dead, beside the round trip of the path."""

MOST_PATIENCE = 0.5
"""Seconds of round trip at most that are added to that: a dead path is left within 5 s."""

SLOW_DETECTION = SLOW_INTERVAL + 5.0
"""The same at a node for a relay that neither end needs now."""

PASSIVE_DETECTION = 3.5 * SLOW_INTERVAL
"""The same at that relay, which waits for the node to ask."""

ANSWER_GAP = 0.04
"""Seconds between two messages of a session in the same state: a question that crosses another needs no answer."""

SETTLING = 1.0
"""Seconds after a change of the state for which messages follow each other after HURRY, until the other end has heard
of the change: while the two ends use different paths, WireGuard drops their packets."""

USE_SECONDS = 60.0
"""Seconds after the last packet to a peer for which the direct path is kept."""

CALL_SECONDS = 40.0
"""Seconds after a peer's call for which this node tries to reach it directly. A caller calls again every 15 s."""

CARRY_SECONDS = 3.0
"""Seconds after which a relay that carries no packets of this node any more is not watched closely."""

HOLD_SECONDS = (0.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds for which a path that failed early is not used again, by the number of early failures in a row."""

EARLY = 30.0
"""Seconds: a path that was up for less has failed early."""

SETTLE = 5.0
"""Seconds to which such a hold is cut once one end has moved: the path that failed led to another endpoint."""

FREE_FLAPS = 3
"""Times that a peer may leave the state UP while it is heard before its path is held: each such change moves
AllowedIPs."""

FLAP_SECONDS = 30.0
"""Seconds after which one such change is forgotten."""

MOST_FLAPS = FREE_FLAPS + 4
"""More changes are not counted: HOLD_SECONDS ends there."""

LONGEST_RTT = 60_000
"""Milliseconds. A longer round trip is nonsense: DETECTION ends a session long before."""

OVERTAKEN = 5_000
"""Milliseconds by which a probe may be older than one that came before it: the network has reordered them. A clock that
is further back has begun anew."""

LINGER = 10.0
"""Seconds for which WireGuard still knows a peer whose session was closed: the peer's last messages are answered."""

OFFER_SECONDS = 10.0
"""Seconds between two messages of this version to a peer that seems to be of a former version: it may be upgraded, or
such messages were lost."""

UNKNOWN, FORMER, PRESENT = "unknown", "former", "present"
"""Which messages a peer understands: not known yet, those of former versions alone, or all of this version."""

_NEVER = float("-inf")


@dataclass
class Session:
    """The session with one peer. Times are the caller's clock in seconds."""

    peer: OverlayPeer
    is_lasting: bool
    """Whether the session is always kept: one of the two ends is a relay."""
    drives: bool
    """Whether this end sends the probes, and the other end usually answers only."""

    key: str = ""
    """Which of the peer's public keys this node takes it to have."""
    rekeyed_at: float = _NEVER
    """When the peer has said that it changes to its next key; earlier than ever before that."""
    handshakes: dict[str, int] = field(default_factory=dict)
    """The latest handshakes by the peer's two keys, in seconds since 1970, as they were noted last."""
    state: str = DOWN
    heard_at: float | None = None
    """When the last probe came; None once the path counts as dead, or before."""
    remote_state: str = DOWN
    remote_sent: int = 0
    remote_wanted: bool = False
    rtt_ms: float | None = None
    speaks: str = UNKNOWN
    present_at: float = _NEVER
    """When the last message of this version came."""
    offered_at: float = _NEVER
    """When a message of this version was sent last."""
    is_current: bool = False
    """Whether a message came from the peer's present probe address: its version is not one with other addresses."""

    used_at: float = _NEVER
    """When this node or its pods last sent to the peer, or to its pods."""
    called_at: float = _NEVER
    carried_at: float = _NEVER
    """When the peer, a relay, was last seen to carry packets of this node to others."""

    sent_at: float = _NEVER
    told_wanted: bool = False
    rests: float = _NEVER
    """The session needs no look before this time."""
    is_greeting: bool = False
    """Whether WireGuard has a session with the peer, and this agent has not heard of it yet: it sends probes all the
    same."""
    greetings: int = 0
    """How many of these probes may still be sent."""
    has_answered: bool = False
    """Whether the peer's WireGuard has answered a handshake since the last attempt: its key is the right one."""
    _was_fast: bool = False
    _fast_since: float = _NEVER

    is_configured: bool = False
    """Whether WireGuard knows the peer."""
    linger_until: float = _NEVER
    attempts: int = 0
    next_attempt: float = 0.0
    calls: int = 0
    next_call: float = float("inf")
    answered_at: float = _NEVER
    table_at: float = _NEVER
    """When a relay last told the peer, of a former version, whom it reaches."""
    forwarded: tuple[float, float] | None = None
    """What is left of the calls of this peer that are passed on, and when that was so."""
    endpoint: str | None = None
    """Where WireGuard saw the peer last."""
    sightings: dict[str, tuple[str | None, tuple[str, ...], float]] = field(default_factory=dict)
    """The endpoint at which a relay sees the peer, those in its own network, and the time, by the relay's address."""
    remote_relays: tuple[str, ...] = ()
    """The relays with which the peer's session is up, as its last call said."""
    absent_at: frozenset[str] = frozenset()
    """The relays that said that they do not reach the peer."""

    up_since: float | None = None
    early_failures: int = 0
    changed_at: float = _NEVER
    """When the state was last another."""
    left_at: float = _NEVER
    """When this end last left the path because it heard nothing; earlier than ever once the peer knows."""
    hold_until: float = 0.0
    flaps: float = 0.0
    """Times that the peer left UP while it was heard; fades by one in FLAP_SECONDS."""
    flapped_at: float = 0.0
    damped_until: float = 0.0
    """Until then the path is not used. Unlike hold_until, it does not end when the peer moves."""

    def __post_init__(self) -> None:
        self.key = self.key or self.peer.public_key

    @property
    def other_key(self) -> str | None:
        """The key that the peer may have besides, while keys are rotated; else None."""
        return next((key for key in self.peer.public_keys if key != self.key), None)

    @property
    def awaits_key(self) -> bool:
        """Whether the peer is going to change to its next key."""
        return self.peer.next_public_key not in (None, self.key)

    def is_used(self, now: float) -> bool:
        """Return whether this node sent something to the peer lately."""
        return now - self.used_at < USE_SECONDS

    def is_wanted(self, now: float) -> bool:
        """Return whether this end wants the path: it is used, the peer has called, or the peer relays for this node."""
        return self.is_used(now) or now - self.called_at < CALL_SECONDS or now - self.carried_at < CARRY_SECONDS

    def is_kept(self, now: float) -> bool:
        """Return whether the session is worth its messages. A peer of a former version always probes."""
        return (
            self.is_lasting
            or (self.heard_at is not None and (self.remote_wanted or self.speaks == FORMER))
            or self.is_wanted(now)
        )

    @property
    def is_heard(self) -> bool:
        """Whether this agent hears the peer. The peer of a resumed session may be heard by the agent before alone."""
        return self.heard_at is not None and not self.is_greeting

    def is_up(self) -> bool:
        """Return whether both ends hear each other, or did when an agent before was stopped."""
        return self.state == UP

    def hear(self, message: Probe | FormerProbe, now: float) -> None:
        """Take over what the peer says of the session. A probe that a newer one overtook only shows that it came."""
        is_overtaken = self.heard_at is not None and 0 < self.remote_sent - message.sent < OVERTAKEN
        self.heard_at = now
        if is_overtaken:
            return
        if isinstance(message, Probe):
            self.speaks, self.present_at = PRESENT, now
            self.remote_wanted = message.is_wanted
        elif now - self.present_at >= DETECTION:
            # A peer that does not know this node's version sends both kinds.
            self.speaks, self.remote_wanted = FORMER, False
        self.is_greeting = False
        self.remote_state = message.state
        self.remote_sent = message.sent
        if message.echo is not None:
            rtt = milliseconds(now) - message.echo - message.held
            if rtt <= LONGEST_RTT:
                self.rtt_ms = float(max(0, rtt))

    def advance(self, now: float) -> bool:
        """Move to the state that follows from what is known; return whether the session came up or is up no more."""
        self._set_pace(now)
        if self.heard_at is not None and self._silence(now) >= self._detection():
            self.lose()
        if self.heard_at is None or not self.is_kept(now) or now < max(self.hold_until, self.damped_until):
            state = DOWN
        elif self.remote_state in (INIT, UP):
            state = UP
        else:
            state = INIT
        was_up = self.is_up()
        if state != self.state:
            self.state, self.changed_at = state, now
        if was_up and state != UP:
            self._record_end(now)
        elif state == UP and not was_up:
            self.up_since = now
            self.attempts = self.calls = 0
            self.next_call = float("inf")
        return was_up != (state == UP)

    def note_call(self, sent: int) -> None:
        """Take over what a peer's call says: at ``sent`` of its clock it heard nothing of this node directly."""
        self.left_at = _NEVER
        if self.heard_at is not None and sent > self.remote_sent:
            self.remote_state = DOWN

    def lose(self) -> None:
        """Forget that the peer was heard."""
        self.heard_at = None
        self.remote_state = DOWN
        self.remote_wanted = False

    def restart(self, now: float) -> None:
        """Begin anew: WireGuard has no session with the peer any more."""
        self.lose()
        self.state = DOWN
        self.up_since = None
        self.attempts = 0
        self.next_attempt = now

    def resume(self, now: float, *, is_up: bool) -> None:
        """Begin with the session that WireGuard has already; ``is_up`` says that packets take the path."""
        self.is_configured = True
        self.greet()
        if is_up:
            self.heard_at = now
            self.state = self.remote_state = UP
            self.up_since = _NEVER

    def greet(self) -> None:
        """Ask the peer over the session that WireGuard has with it."""
        self.is_greeting = True
        self.greetings = GREETINGS

    def close(self, now: float) -> None:
        """End the session by agreement: neither end wants the path."""
        self.restart(now)
        self.calls, self.next_call = 0, float("inf")
        self.sightings.clear()
        self.remote_relays, self.absent_at = (), frozenset()
        self.linger_until = now + LINGER

    @property
    def is_open(self) -> bool:
        """Whether there is something to close."""
        return self.heard_at is not None or self.attempts > 0 or self.next_call != float("inf")

    def is_forgettable(self, now: float) -> bool:
        """Return whether nothing of the closed session matters any more."""
        return now >= max(self.linger_until, self.hold_until, self.damped_until)

    def is_late(self, now: float) -> bool:
        """Return whether a probe of the peer is missing, so that this end asks for it."""
        if self.heard_at is None:
            return False
        if self._is_fast(now):
            return self._silence(now) >= LATE
        return self.drives and self._silence(now) >= SLOW_LATE

    def hurry(self, now: float) -> float:
        """Return the seconds between two messages while a probe is missing, or the two ends do not agree yet.

        Infinite at other times.
        """
        if self.is_late(now):
            if not self._is_fast(now):
                return SLOW_HURRY
            return LAST_HURRY if self._silence(now) >= self._detection() - LAST_SECONDS else HURRY
        return HURRY if self._is_settling(now) else float("inf")

    def is_due(self, now: float) -> bool:
        """Return whether a probe is due. Nothing is sent by itself to a peer that is not heard, but with an attempt."""
        if self.heard_at is None:
            has_greeting = self.is_greeting and self.greetings > 0
            return has_greeting and now - self.sent_at >= GREETING_INTERVAL - EARLINESS
        if self.is_wanted(now) != self.told_wanted and self.is_lasting:
            return True
        interval = self._interval(now)
        return now - self.sent_at >= interval - min(EARLINESS, interval / 2)

    def rests_until(self, now: float) -> float:
        """Return a time before which the session needs no look unless something is heard or wanted."""
        if self.heard_at is None or self.told_wanted or self._is_fast(now) or self._is_settling(now):
            return now
        if not self.drives:
            return self.heard_at + PASSIVE_DETECTION
        return min(self.heard_at + SLOW_LATE, self.sent_at + SLOW_INTERVAL)

    def probes(self, now: float, *, is_poll: bool, seen: str | None, lan: tuple[str, ...]) -> list[Message]:
        """Return the messages that say this end's state now; for a peer of unknown version there are two."""
        self.sent_at = now
        self.greetings -= 1
        self.told_wanted = self.is_wanted(now)
        heard_at = self.heard_at if self.is_heard else None
        echo = self.remote_sent if heard_at is not None else None
        held = milliseconds(now - heard_at) if heard_at is not None else 0
        sent = milliseconds(now)
        messages: list[Message] = []
        # A peer of this version may be taken for a former one, if the message that tells was lost.
        if self.speaks != FORMER or self.is_late(now) or now - self.offered_at >= OFFER_SECONDS:
            self.offered_at = now
            messages.append(Probe(self.state, sent, echo, held, is_poll, self.told_wanted, seen))
        if self.speaks != PRESENT:
            messages.append(FormerProbe(self.state, sent, echo, held, lan))
        return messages

    def hold_briefly(self, now: float) -> None:
        """End a hold soon: one end has moved, so the path that failed was another."""
        self.hold_until = min(self.hold_until, now + SETTLE)

    def _is_fast(self, now: float) -> bool:
        is_quiet = self.is_up() and self.is_heard and self.speaks != FORMER
        return not is_quiet or self.remote_wanted or self.is_wanted(now)

    def _set_pace(self, now: float) -> None:
        is_fast = self._is_fast(now)
        if is_fast and not self._was_fast:
            # The last probe may be SLOW_INTERVAL old, which says nothing against the path.
            self._fast_since = now
        self._was_fast = is_fast

    def _silence(self, now: float) -> float:
        heard_at = _NEVER if self.heard_at is None else self.heard_at
        return now - (max(heard_at, self._fast_since) if self._was_fast else heard_at)

    def _is_settling(self, now: float) -> bool:
        """Return whether the peer may not have heard yet that the state here is another."""
        if self.heard_at is None or now - self.changed_at >= SETTLING:
            return False
        return self.state == INIT or self.is_up() != (self.remote_state == UP)

    def _detection(self) -> float:
        if self._was_fast:
            return DETECTION + min((self.rtt_ms or 0.0) / 1000, MOST_PATIENCE)
        return SLOW_DETECTION if self.drives else PASSIVE_DETECTION

    def _interval(self, now: float) -> float:
        if self._is_fast(now):
            usual = INTERVAL if self.drives or self.speaks == FORMER else ANSWERING_INTERVAL
        else:
            usual = SLOW_INTERVAL if self.drives else float("inf")
        return min(usual, self.hurry(now))

    def _record_end(self, now: float) -> None:
        """Hold a direct path that failed early, longer each time; a pair with a relay in it has no other path."""
        is_early = self.up_since is not None and now - self.up_since < EARLY
        if self.heard_at is None:
            self.left_at = now
            if not self.is_lasting:
                self.early_failures = min(self.early_failures + 1, len(HOLD_SECONDS) - 1) if is_early else 0
                self.hold_until = now + HOLD_SECONDS[self.early_failures]
        elif self.is_kept(now):
            self._damp(now)
        self.up_since = None
        self.next_attempt = now

    def _damp(self, now: float) -> None:
        """Hold the path of a peer that is heard but changes its state again and again, longer each time."""
        self.flaps = max(0.0, self.flaps - (now - self.flapped_at) / FLAP_SECONDS) + 1
        self.flaps = min(self.flaps, MOST_FLAPS)
        self.flapped_at = now
        excess = int(self.flaps) - FREE_FLAPS
        if excess > 0:
            self.damped_until = now + HOLD_SECONDS[excess]


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, as the messages have them."""
    return round(seconds * 1000)
