# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A state machine for hypothesis: any sequence of claims, releases and pool changes, and what must hold after each.

The registry is compared with a simple model: the claims, the released subnets with their times, and the pools.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from ansible_collections.evio.cni.plugins.module_utils.claims.model import Claim, ClaimError, Request
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.claims.reshape import Changes
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Put
from ansible_collections.evio.cni.plugins.module_utils.subnets import Pool, overlaps, parse_pools
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

NODES = st.sampled_from([f"node{number}" for number in range(7)])
POOLS = st.sampled_from(
    [
        ("10.244.0.0/16", "2"),
        ("10.244.0.0/17", "1"),
        ("10.244.0.0/15", "3"),
        ("10.244.0.0/16", "3"),
        ("10.244.0.0/16,fd00::/60", "2"),
        ("10.244.0.0/15,fd00::/60", "3,2"),
        ("10.60.0.0/16", "2"),
        ("10.60.0.0/16,fd00:1::/60", "3,2"),
    ]
)
SUBNETS = st.sampled_from([f"10.{244 + place // 4}.{place % 4 * 64}.0/18" for place in range(8)])
RESERVED = st.lists(SUBNETS, max_size=2, unique=True).map(tuple)
QUARANTINE = 100.0


def versions(cidrs: Sequence[str]) -> set[int]:
    """Return the IP versions of these networks."""
    return {ip_network(cidr).version for cidr in cidrs}


class RegistryMachine(RuleBasedStateMachine):
    """The machine; a subclass connects it to an etcd."""

    def connect(self) -> tuple[Any, str]:
        """Return an etcd, and the name of a cluster that is unused there."""
        raise NotImplementedError

    @initialize(pools=POOLS)
    def begin(self, pools: tuple[str, str]) -> None:
        self.now = 1_000.0
        self.etcd, cluster = self.connect()
        self.registry = Registry(self.etcd, cluster, clock=lambda: self.now)
        self.pools = parse_pools(*pools)
        self.reserved: tuple[str, ...] = ()
        self.pins: dict[str, tuple[str, ...]] = {}
        self.claims: dict[str, Claim] = {}
        self.released: dict[str, float] = {}
        self.registry.reshape(Changes(pools=self.pools))

    @rule(nodes=st.lists(NODES, min_size=1, max_size=4, unique=True))
    def claim(self, nodes: list[str]) -> None:
        requests = [Request(node, f"machine-of-{node}") for node in nodes]
        self._claim(requests)

    @rule(node=NODES, cidr=SUBNETS)
    def claim_pinned(self, node: str, cidr: str) -> None:
        self._claim([Request(node, f"machine-of-{node}", (cidr,))])

    @rule(nodes=st.lists(NODES, min_size=1, max_size=3, unique=True))
    def release(self, nodes: list[str]) -> None:
        outcome = self.registry.release(nodes)
        assert set(outcome.changed) == {node for node in nodes if node in self.claims}
        self._forget(outcome.changed)

    @rule(live=st.lists(NODES, min_size=1, unique=True))
    def prune(self, live: list[str]) -> None:
        outcome = self.registry.reshape(Changes(live_nodes=tuple(live)))
        assert set(outcome.released) == set(self.claims) - set(live)
        self._forget(outcome.released)
        self._forget_stale_releases()

    @rule(pools=POOLS)
    def change_the_networks(self, pools: tuple[str, str]) -> None:
        wanted = parse_pools(*pools)
        held = [cidr for claim in self.claims.values() for cidr in claim.cidrs]
        outside = [cidr for cidr in held if not any(cidr in pool for pool in wanted)]
        fits = all(any(cidr in pool for pool in self._former()) for cidr in outside)
        fits = fits and not any(overlaps(ip_network(cidr), pool.network) for cidr in outside for pool in wanted)
        pins_fit = all(any(cidr in pool for pool in wanted) for cidrs in self.pins.values() for cidr in cidrs)
        assert self._is_done(Changes(pools=wanted)) == (fits and pins_fit)
        if fits and pins_fit:
            self._take(wanted)

    @rule(pools=POOLS)
    def move_to_other_networks(self, pools: tuple[str, str]) -> None:
        wanted = parse_pools(*pools)
        outside = [cidr for claim in self.claims.values() for cidr in claim.cidrs if not any(cidr in p for p in wanted)]
        pins_fit = all(any(cidr in pool for pool in wanted) for cidrs in self.pins.values() for cidr in cidrs)
        is_apart = not any(overlaps(ip_network(cidr), pool.network) for cidr in outside for pool in wanted)
        is_done = self._is_done(Changes(pools=wanted, keeps_former=True))
        assert is_done == (is_apart and pins_fit)
        if is_done:
            self._take(wanted)

    @rule(nodes=st.lists(NODES, min_size=1, max_size=4, unique=True))
    def leave_the_former_networks(self, nodes: list[str]) -> None:
        held = {node: self.claims[node] for node in nodes if node in self.claims}
        kept = {
            node: tuple(c for c in claim.cidrs if any(c in pool for pool in self.pools)) for node, claim in held.items()
        }
        is_covered = all(versions(kept[node]) == versions(claim.cidrs) for node, claim in held.items())
        assert self._is_done(Changes(moved_nodes=tuple(nodes))) == is_covered
        if is_covered:
            after = self.registry.read().claims
            for node, claim in held.items():
                assert after[node].cidrs == kept[node]
                assert (after[node].epoch > claim.epoch) == (kept[node] != claim.cidrs)
                self.claims[node] = after[node]
                self.released.update(dict.fromkeys(set(claim.cidrs) - set(kept[node]), self.now))
            self._forget_stale_releases()

    @rule(reserved=RESERVED)
    def reserve(self, reserved: tuple[str, ...]) -> None:
        used = [cidr for claim in self.claims.values() for cidr in claim.cidrs]
        used += [cidr for cidrs in self.pins.values() for cidr in cidrs]
        is_free = not any(overlaps(ip_network(cidr), ip_network(one)) for cidr in used for one in reserved)
        assert self._is_done(Changes(reserved=reserved)) == is_free
        if is_free:
            self.reserved = reserved
            self._forget_stale_releases()

    @rule(node=NODES, cidr=SUBNETS)
    def pin(self, node: str, cidr: str) -> None:
        if self._is_done(Changes(pins={node: (cidr,)})):
            self.pins = {node: (cidr,)}
            self._forget_stale_releases()

    @rule()
    def unpin(self) -> None:
        self.registry.reshape(Changes(pins={}))
        self.pins = {}
        self._forget_stale_releases()

    @rule(node=NODES, place=st.integers(0, 3))
    def adopt(self, node: str, place: int) -> None:
        """Adopt a subnet. Upstream has a key of the first only: its keys do not name a cluster, so tests share it."""
        self.etcd.txn([], [Put("/evpn/10.244.0.2,10.244.63.254,10.244.0.1/16", "ok")])
        request = Request(node, f"machine-of-{node}", (f"10.244.{place * 64}.0/18",))
        if self._is_done(Changes(adopt=(request,))):
            assert place == 0
            self.claims[node] = self.registry.read().claims[node]
            self.released.pop("10.244.0.0/18", None)
            self.reserved = tuple(cidr for cidr in self.reserved if cidr != "10.244.0.0/18")
            self._forget_stale_releases()

    @rule(seconds=st.sampled_from([1.0, 60.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def registry_and_model_agree(self) -> None:
        if not hasattr(self, "registry"):
            return
        snapshot = self.registry.read()
        assert dict(snapshot.claims) == self.claims
        assert {cidr: one.released for cidr, one in snapshot.released.items()} == self.released
        assert snapshot.pool_config is not None
        assert snapshot.pool_config.pools == self.pools

    @invariant()
    def no_subnet_is_given_twice_and_none_overlaps(self) -> None:
        held = [ip_network(cidr) for claim in getattr(self, "claims", {}).values() for cidr in claim.cidrs]
        for place, one in enumerate(held):
            assert not any(overlaps(one, other) for other in held[place + 1 :])
            assert any(str(one) in pool for pool in (*self.pools, *self._former()))
            assert not any(overlaps(one, ip_network(reserved)) for reserved in self.reserved)

    def _former(self) -> tuple[Pool, ...]:
        config = self.registry.read().pool_config
        return config.former if config is not None else ()

    def _take(self, pools: tuple[Pool, ...]) -> None:
        self.pools = pools
        self._forget_stale_releases()

    def _forget_stale_releases(self) -> None:
        """Forget released subnets of a size that no pool has any more, as each change of the pool does."""
        for cidr in list(self.released):
            network = ip_network(cidr)
            lengths = [pool.prefix_length for pool in (*self.pools, *self._former()) if pool.family == network.version]
            if lengths and network.prefixlen not in lengths:
                del self.released[cidr]

    def _claim(self, requests: list[Request]) -> None:
        planned = self._try_claim(requests, dry_run=True)
        done = self._try_claim(requests, dry_run=False)
        assert (planned is None) == (done is None)
        if planned is None or done is None:
            return
        assert {node: claim.cidrs for node, claim in planned.items()} == {
            node: claim.cidrs for node, claim in done.items()
        }
        for node, claim in done.items():
            before = self.claims.get(node)
            if before is not None:
                assert set(before.cidrs) <= set(claim.cidrs)
            for cidr in set(claim.cidrs) - set(before.cidrs if before else ()):
                self._check_given(node, cidr, requests)
            assert before is None or claim == before or claim.epoch > before.epoch
            self.claims[node] = claim

    def _check_given(self, node: str, cidr: str, requests: list[Request]) -> None:
        pinned = {pin for request in requests if request.node == node for pin in request.pin}
        resting_since = self.released.pop(cidr, None)
        if cidr not in pinned and cidr not in self.pins.get(node, ()) and resting_since is not None:
            assert self.now - resting_since >= QUARANTINE
        assert all(node == owner or cidr not in cidrs for owner, cidrs in self.pins.items())

    def _try_claim(self, requests: list[Request], *, dry_run: bool) -> dict[str, Claim] | None:
        try:
            return self.registry.claim(requests, self.pools, quarantine=QUARANTINE, dry_run=dry_run).claims
        except ClaimError:
            return None

    def _is_done(self, changes: Changes) -> bool:
        try:
            foretold = self.registry.reshape(changes, dry_run=True)
        except ClaimError:
            foretold = None
        try:
            done = self.registry.reshape(changes)
        except ClaimError:
            assert foretold is None
            return False
        assert foretold is not None
        assert foretold.changed == done.changed
        assert not self.registry.reshape(changes).changed
        return True

    def _forget(self, nodes: tuple[str, ...]) -> None:
        for node in nodes:
            for cidr in self.claims.pop(node).cidrs:
                self.released[cidr] = self.now
