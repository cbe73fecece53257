# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A simulated network of overlay nodes: real path selection and messages, in place of WireGuard, NATs and the clock.

A message passes between two nodes once both WireGuards know each other, and both nodes, or the one behind a NAT, have
sent to the other's endpoint lately. Packets have a delay and may be lost. Packets of pods are told to path selection as
the kernel tells the agent: the first one, and again every 10 s while there are more.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random

from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import (
    OverlayConfig,
    OverlayPeer,
    PodRoutes,
    probe_address,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.messages import Message, decode, encode
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.path_selection import (
    TICK,
    Actions,
    OverlayPaths,
)

NAT_LIFETIME = 60.0
"""Seconds for which a NAT lets answers in after the last packet out."""

USE_INTERVAL = 10.0
"""Seconds between two reports of the kernel about packets to one peer."""

OBSERVE_INTERVAL = 1.0
"""Seconds between two looks of an agent at its device."""

HEADERS = 20 + 8 + 32 + 28
"""Bytes around a message on an IPv4 underlay: IP, UDP, WireGuard's header and tag, and the inner IP and UDP."""

OLD_SESSION = 180.0
"""Seconds after a change of its key for which a node still reads what others send with the old session."""

HANDSHAKE = 20 + 8 + 148
"""Bytes of a WireGuard handshake initiation."""


def key(index: int, generation: int = 0) -> str:
    """Return a public key of the node of this number: its first, or one to which it changes."""
    return base64.b64encode(index.to_bytes(2, "big") * 15 + generation.to_bytes(2, "big")).decode()


def peer(index: int, is_public: bool = False) -> OverlayPeer:
    """Return the node of this number, from 1 on."""
    address = str(ip_address("10.10.0.0") + index)
    return OverlayPeer(
        f"n{index}", key(index), address, f"198.51.{100 + index // 250}.{index % 250}:51820" if is_public else None
    )


class Network:
    """The nodes n1, n2 ...: first the public ones, which are relays, then those behind a NAT each."""

    def __init__(
        self,
        public: int,
        nated: int,
        *,
        delay: float = 0.0,
        jitter: float = 0.0,
        loss: float = 0.0,
        seed: int = 0,
        knows: Callable[[int, int], bool] = lambda _node, _peer: True,
        starts: bool = True,
    ) -> None:
        """``delay`` and ``jitter`` are seconds of one direction, ``loss`` is a probability.

        ``knows(i, k)`` says whether node i has node k in its configuration, both numbered from 0; with ``starts`` all
        nodes' agents are started.
        """
        self.peers = [peer(index + 1, index < public) for index in range(public + nated)]
        self.index = {p.address: index for index, p in enumerate(self.peers)}
        self.now = 1000.0
        self.delay, self.jitter, self.loss = delay, jitter, loss
        self.random = Random(seed)
        self.knows = knows
        self.routes = PodRoutes(
            ("10.244.0.0/14",), {p.name: (f"10.{244 + i // 256}.{i % 256}.0/24",) for i, p in enumerate(self.peers)}
        )
        self.nodes: dict[str, OverlayPaths] = {}
        self.endpoints = {
            p.address: p.endpoint or f"203.0.{113 + i // 250}.{i % 250 + 1}:51820" for i, p in enumerate(self.peers)
        }
        """The ``address:port`` at which the internet sees each node."""
        self.devices: dict[str, dict[str, str]] = {p.address: {} for p in self.peers}
        """The endpoint to which the WireGuard of the first node sends packets for the second."""
        self.keys = {p.address: p.public_key for p in self.peers}
        """The public key that each node has."""
        self.changed_keys_at: dict[str, float] = {}
        self.handshakes: dict[str, dict[str, int]] = {p.address: {} for p in self.peers}
        """When each node's WireGuard had its last handshake with a public key."""
        self.opened: dict[tuple[str, str], float] = {}
        """When the first node has last sent to the second's endpoint, so that its NAT lets answers in."""
        self.loses: Callable[[str, str], bool] = lambda _source, _target: self.random.random() < self.loss
        """Whether the next message from the first node to the second is lost."""
        self.arrives: Callable[[str, str], None] = lambda _source, _target: None
        """Called when a message from the first node has reached the second."""
        self.cut: set[tuple[str, str]] = set()
        """Pairs (from, to): no packet passes from the first node to the second."""
        self.talking: set[tuple[str, str]] = set()
        """Pairs (from, to): the first node sends packets to the second all the time."""
        self.sent: dict[str, int] = dict.fromkeys(self.endpoints, 0)
        """Bytes that each node has sent to the underlay."""
        self.messages: dict[str, int] = dict.fromkeys(self.endpoints, 0)
        self.cpu: dict[str, float] = dict.fromkeys(self.endpoints, 0.0)
        """Seconds of CPU that each node's path selection and messages took."""
        self.stopped: set[str] = set()
        self._next_tick: dict[str, float] = {}
        """When each node looks at its paths next."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        for index in range(len(self.peers)) if starts else ():
            self.start(index)

    # What tests do

    def start(self, index: int, phase: float | None = None) -> None:
        """Start the agent of a node, again if it runs: it knows nothing of before."""
        p = self.peers[index]
        others = [o for k, o in enumerate(self.peers) if k != index and self.knows(index, k)]
        is_new = p.address not in self.nodes
        allowed = {} if is_new else self.nodes[p.address].allowed_ips()
        paths = self.new_paths(index, self.config(index))
        known = [key for o in others if o.address in self.devices[p.address] for key in o.public_keys]
        paths.resume({key: allowed[key] for key in known if key in allowed}, self.now)
        paths.note_handshakes(self.handshakes[p.address])
        self.nodes[p.address] = paths
        self.stopped.discard(p.address)
        if is_new:
            self._tick_in(p.address, self.random.random() * 0.5 if phase is None else phase)

    def config(self, index: int) -> OverlayConfig:
        """Return the configuration of a node."""
        p = self.peers[index]
        return OverlayConfig(
            node=p.name,
            address=p.address,
            host_cidr="10.10.0.0/16",
            public_key=self.keys[p.address],
            endpoint=p.endpoint,
            peers=tuple(o for k, o in enumerate(self.peers) if k != index and self.knows(index, k)),
        )

    def announce_keys(self, generation: int) -> None:
        """Tell all nodes the next key of each node, as the playbook does."""
        self.peers = [replace(p, next_public_key=key(i, generation)) for i, p in enumerate(self.peers, 1)]
        self._configure()

    def change_key(self, index: int) -> None:
        """Let a node change to its next key, as its agent does."""
        p = self.peers[index]
        assert p.next_public_key is not None
        paths = self.nodes[p.address]
        self._carry(p.address, paths.announce_key())
        self.keys[p.address] = p.next_public_key
        self.changed_keys_at[p.address] = self.now
        paths.configure(self.config(index), self.routes, self.now)
        self._carry(p.address, paths.begin_sessions(self.now))

    def forget_keys(self) -> None:
        """Tell all nodes the keys that the nodes have now, and no others."""
        self.peers = [replace(p, public_key=self.keys[p.address], next_public_key=None) for p in self.peers]
        self._configure()

    def _configure(self) -> None:
        for index, p in enumerate(self.peers):
            self.nodes[p.address].configure(self.config(index), self.routes, self.now)

    def new_paths(self, index: int, config: OverlayConfig) -> OverlayPaths:
        """Return the agent of a node."""
        return OverlayPaths(config, self.routes, self.now)

    def stop(self, index: int) -> None:
        """Stop the agent of a node and cut the node off."""
        self.stopped.add(self.peers[index].address)

    def restart_device(self, index: int) -> None:
        """Let the node's WireGuard begin anew, without peers."""
        address = self.peers[index].address
        self.devices[address].clear()
        self.handshakes[address].clear()
        self.changed_keys_at[address] = -OLD_SESSION
        self.nodes[address].restarted(self.now)

    def talk(self, first: int, second: int) -> None:
        """Let two nodes send each other packets from now on."""
        a, b = self.peers[first].address, self.peers[second].address
        for source, target in ((a, b), (b, a)):
            if (source, target) not in self.talking:
                self.talking.add((source, target))
                self._use(source, target)

    def hush(self) -> None:
        """Let nobody send packets any more."""
        self.talking.clear()

    def cut_pair(self, first: int, second: int) -> None:
        a, b = self.peers[first].address, self.peers[second].address
        self.cut |= {(a, b), (b, a)}

    def move(self, index: int, endpoint: str) -> None:
        """Let the internet see a node at another endpoint, with a NAT that has no mappings."""
        address = self.peers[index].address
        self.endpoints[address] = endpoint
        self.opened = {pair: at for pair, at in self.opened.items() if pair[0] != address}

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _number, action = heapq.heappop(self._events)
            action()
        self.now = end

    def seconds_until(self, source: int, target: int, way: list[str], at_most: float) -> float:
        """Return the seconds until packets take this route in both directions."""
        start = self.now
        ways = {(source, target): way, (target, source): [*way[:-1][::-1], f"n{source + 1}"]}
        while any(self.route(*ends) != wanted for ends, wanted in ways.items()):
            self.run(0.05)
            assert self.now - start <= at_most, {ends: self.route(*ends) for ends in ways}
        return self.now - start

    def hop(self, source: int, target: int) -> str | None:
        """Return the name of the peer whose AllowedIPs have the target, by the longest prefix; None if none has."""
        address = ip_address(self.peers[target].address)
        best, holders = -1, []
        for key, prefixes in self.nodes[self.peers[source].address].allowed_ips().items():
            for prefix in prefixes:
                network = ip_network(prefix)
                if address in network and network.prefixlen >= best:
                    holders = [*holders, key] if network.prefixlen == best else [key]
                    best = network.prefixlen
        assert len(holders) <= 1
        return next((p.name for p in self.peers if self.keys[p.address] in holders), None)

    def route(self, source: int, target: int) -> list[str]:
        """Return the nodes that a packet passes; nothing if WireGuard would drop it at a hop for its source address."""
        way, at = [], source
        while at != target:
            name = self.hop(at, target)
            if name is None:
                return []
            hop = int(name[1:]) - 1
            back = self.hop(hop, source) if hop != source else None
            if (self.peers[at].address, self.peers[hop].address) in self.cut or back != self.peers[at].name:
                return []
            way.append(self.peers[hop].name)
            at = hop
            if len(way) > len(self.peers):
                return []
        return way

    # What happens

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), action))

    def _tick_in(self, address: str, seconds: float) -> None:
        """Let the node look at its paths after so many seconds, unless it will earlier."""
        when = self.now + seconds
        if when < self._next_tick.get(address, math.inf):
            self._next_tick[address] = when
            self._at(when, lambda: self._tick(address, when))

    def _tick(self, address: str, when: float) -> None:
        if self._next_tick.get(address) != when:
            return
        del self._next_tick[address]
        paths = self.nodes[address]
        if address not in self.stopped:
            paths.note_handshakes(self.handshakes[address])
            paths.observe({self.keys[other]: at for other, at in self.devices[address].items()})
            self._carry(address, self._timed(address, lambda: paths.tick(self.now)))
        self._tick_in(address, TICK if address in self.stopped else paths.interval)

    def _use(self, source: str, target: str) -> None:
        if (source, target) not in self.talking:
            return
        if source not in self.stopped and source in self.nodes:
            self._carry(source, self._timed(source, lambda: self.nodes[source].used([target], self.now)))
        self._at(self.now + USE_INTERVAL, lambda: self._use(source, target))

    def _timed(self, address: str, work: Callable[[], Actions]) -> Actions:
        start = time.thread_time()
        actions = work()
        self.cpu[address] += time.thread_time() - start
        if address in self._next_tick:
            self._tick_in(address, self.nodes[address].interval)
        return actions

    def _carry(self, source: str, actions: Actions) -> None:
        for attempt in actions.attempts:
            self.devices[source][attempt.peer.address] = attempt.endpoint
            self.sent[source] += HANDSHAKE
        for outgoing in actions.outgoing:
            self._send(source, outgoing.peer.address, outgoing.message, 1392 if outgoing.padded else 0)

    def _send(self, source: str, target: str, message: Message, size: int) -> None:
        start = time.thread_time()
        datagram = encode(message, size)
        self.cpu[source] += time.thread_time() - start
        endpoint = self.devices[source].get(target)
        if endpoint is None or not self._knows(source, target):
            return
        if endpoint == self.endpoints[target]:
            self.opened[source, target] = self.now
        self.messages[source] += 1
        self.sent[source] += (len(datagram) + 28 + 15) // 16 * 16 + HEADERS - 28
        if self.loses(source, target):
            return
        arrival = self.now + self.delay + self.jitter * self.random.random()
        keys = self.keys[source], self.nodes[source]._sessions[target].key
        self._at(arrival, lambda: self._arrive(source, target, datagram, *keys))

    def _arrive(self, source: str, target: str, datagram: bytes, key_of_source: str, key_of_target: str) -> None:
        if target in self.stopped or target not in self.nodes or not self._passes(source, target):
            return
        is_old = key_of_target != self.keys[target]
        if is_old and self.now - self.changed_keys_at.get(target, -OLD_SESSION) >= OLD_SESSION:
            return
        session = self.nodes[target]._sessions[source]
        if key_of_source not in session.peer.public_keys:
            return
        if not is_old:
            self.handshakes[target][key_of_source] = self.handshakes[source][key_of_target] = int(self.now)
            if self.nodes[target].expects_handshake(self.now):
                self.nodes[target].note_handshakes(self.handshakes[target])
        if key_of_source != session.key:
            # The address belongs to the other key's AllowedIPs.
            return
        self.arrives(source, target)
        self.devices[target][source] = self.endpoints[source]
        paths = self.nodes[target]
        actions = self._timed(target, lambda: paths.receive(probe_address(source), decode(datagram), self.now))
        self._carry(target, actions)

    def _passes(self, source: str, target: str) -> bool:
        there, back = (source, target), (target, source)
        if there in self.cut or not self._knows(*back):
            return False
        is_open, is_open_back = self._is_open(*there), self._is_open(*back)
        source_is_public, target_is_public = (self.peers[self.index[a]].is_relay for a in (source, target))
        return (is_open and is_open_back) or (is_open and target_is_public) or (is_open_back and source_is_public)

    def _is_open(self, sender: str, receiver: str) -> bool:
        return self.now - self.opened.get((sender, receiver), 0.0) < NAT_LIFETIME

    def _knows(self, node: str, other: str) -> bool:
        """Return whether the node's WireGuard has the other as a peer."""
        session = self.nodes[node]._sessions.get(other)
        return session is not None and session.is_configured
