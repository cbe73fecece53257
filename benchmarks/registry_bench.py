#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Compare the cost of claiming node subnets in etcd, in milliseconds and calls: evio.cni against EdgeVPNio/cni.

EdgeVPNio/cni's algorithm (upstream in the table) is written out here call by call; its own program does not run. Both
use the same etcd: one member on the loopback, without TLS because upstream has none. Times are medians of --rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "collections"))

from ansible_collections.evio.cni.plugins.module_utils.claims.model import Claim, Request
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.claims.schema import Keys, encode_claim, encode_subnet
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Compare, Delete, Etcd, Get, Put
from ansible_collections.evio.cni.plugins.module_utils.subnets import Pool, parse_pools
from ansible_collections.evio.cni.tests.integration.etcd_server import EtcdServer

LARGE = parse_pools("10.0.0.0/8", 16)
MEDIUM = parse_pools("10.0.0.0/16", 12)
SMALL = parse_pools("10.244.0.0/16", 8)


class CountingEtcd(Etcd):
    """An etcd client that counts its transactions."""

    calls = 0

    def txn(self, *arguments, **options):
        self.calls += 1
        return super().txn(*arguments, **options)


def requests_of(count: int) -> list[Request]:
    """Return the requests of this many nodes that have no claim."""
    return [Request(f"bench{number}", f"machine{number}") for number in range(count)]


def fill(etcd: Etcd, cluster: str, pool: Pool, places: range) -> None:
    """Write claims of the subnets with these numbers straight to their keys, 60 nodes in each transaction."""
    keys = Keys(cluster)
    claims = [Claim(f"node{place}", f"machine-of-{place}", (pool.subnet(place).cidr,), 1.0) for place in places]
    for first in range(0, len(claims), 60):
        puts = []
        for claim in claims[first : first + 60]:
            [cidr] = claim.cidrs
            puts += [
                Put(keys.node(claim.node), encode_claim(claim)),
                Put(keys.subnet(cidr), encode_subnet(cidr, claim)),
            ]
        etcd.txn([], puts)


def upstream_key(pool: Pool, place: int) -> str:
    """Return the key under which EdgeVPNio/cni claims the subnet of this number."""
    subnet = pool.subnet(place)
    return f"/evpn/{subnet.range_start},{subnet.range_end},{subnet.gateway_address}/{pool.network.prefixlen}"


def claim_as_upstream(etcd: Etcd, pool: Pool) -> None:
    """Claim as EdgeVPNio/cni does: take the lock, try every subnet in turn with a transaction each, release the lock.

    Upstream's lock is a lease, a key and a read of the waiting clients. Here it is the key alone, so the figures are
    better than upstream's real ones.
    """
    while not etcd.txn([Compare("/evpn/evio-lock", 0, "create")], [Put("/evpn/evio-lock", "held")]).succeeded:
        time.sleep(0.01)
    try:
        for place in range(pool.size):
            key = upstream_key(pool, place)
            if etcd.txn([Compare(key, 0, "create")], [Put(key, "ok")]).succeeded:
                return
        raise RuntimeError("the pool is used up")
    finally:
        etcd.txn([], [Delete("/evpn/evio-lock")])


def measure(etcd: CountingEtcd, rounds: int, work: Callable[[], None], undo: Callable[[], None]) -> tuple[float, int]:
    """Return the median of the work's time in ms, and its calls; undo brings etcd back after each round."""
    times = []
    calls = 0
    for _round in range(rounds):
        etcd.calls, started = 0, time.monotonic()
        work()
        times.append((time.monotonic() - started) * 1000)
        calls = etcd.calls
        undo()
    return statistics.median(times), calls


def ours(etcd: CountingEtcd, cluster: str, pools: tuple[Pool, ...], count: int, rounds: int) -> tuple[float, int]:
    """Measure how this many nodes claim their subnets in one call of evio.cni's registry."""
    registry = Registry(etcd, cluster)
    keys = Keys(cluster)
    requests = requests_of(count)

    def undo() -> None:
        snapshot = registry.read()
        held = [snapshot.claims[request.node] for request in requests]
        for first in range(0, count, 60):
            etcd.txn(
                [],
                [
                    Delete(key)
                    for claim in held[first : first + 60]
                    for key in (keys.node(claim.node), keys.subnet(claim.cidrs[0]))
                ],
            )

    return measure(etcd, rounds, lambda: registry.claim(requests, pools) and None, undo)


def upstream(etcd: CountingEtcd, pool: Pool, used: int, rounds: int) -> tuple[float, int]:
    """Measure how one node claims a subnet by upstream's algorithm while the first `used` subnets are claimed."""
    for first in range(0, used, 120):
        etcd.txn([], [Put(upstream_key(pool, place), "ok") for place in range(first, min(first + 120, used))])
    last = upstream_key(pool, used)
    try:
        return measure(
            etcd, rounds, lambda: claim_as_upstream(etcd, pool), lambda: etcd.txn([], [Delete(last)]) and None
        )
    finally:
        keys = [pair.key for pair in etcd.txn([], [Get("/evpn/", prefix=True, keys_only=True)]).ranges[0]]
        for first in range(0, len(keys), 120):
            etcd.txn([], [Delete(key) for key in keys[first : first + 120]])


def show(name: str, figures: tuple[float, int]) -> None:
    """Print one line of the table."""
    print(f"{name:60} {figures[0]:10.1f} ms {figures[1]:7d} calls", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement (default: %(default)s)")
    parser.add_argument(
        "--full", action="store_true", help="measure upstream's last of 65536 subnets too: more than a minute"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = EtcdServer(Path(directory), tls=False).start()
        try:
            with CountingEtcd(server.access) as etcd:
                run(etcd, arguments.rounds, arguments.full)
        finally:
            server.stop()


def run(etcd: CountingEtcd, rounds: int, full: bool) -> None:
    """Measure and print every line; "first of 256" is a claim while all subnets of a pool of 256 are free."""
    print(f"{'':60} {'median':>13} {'etcd':>13}")
    show("evio.cni: first of 256", ours(etcd, "first", SMALL, 1, rounds))
    show("upstream: first of 256", upstream(etcd, SMALL[0], 0, rounds))
    fill(etcd, "small", SMALL[0], range(255))
    show("evio.cni: last free of 256", ours(etcd, "small", SMALL, 1, rounds))
    show("upstream: last free of 256", upstream(etcd, SMALL[0], 255, rounds))
    fill(etcd, "medium", MEDIUM[0], range(4095))
    show("evio.cni: last free of 4096", ours(etcd, "medium", MEDIUM, 1, rounds))
    show("upstream: last free of 4096", upstream(etcd, MEDIUM[0], 4095, 1))
    show("evio.cni: 64 nodes in one task", ours(etcd, "nodes64", SMALL, 64, rounds))
    show("evio.cni: 1000 nodes in one task", ours(etcd, "nodes1000", LARGE, 1000, rounds))
    fill(etcd, "large", LARGE[0], range(65535))
    show("evio.cni: last free of 65536", ours(etcd, "large", LARGE, 1, rounds))
    if full:
        show("upstream: last free of 65536", upstream(etcd, LARGE[0], 65535, 1))


if __name__ == "__main__":
    main()
