# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A client of the registry that a test can kill at any time: it claims nodes one by one, and records each claim.

Arguments: file for the record, cluster, number of the first node, number of nodes, URLs of etcd. It is a double of a
run of bootstrap.yml.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ansible_collections.evio.cni.plugins.module_utils.claims.model import Request
from ansible_collections.evio.cni.plugins.module_utils.claims.registry import Registry
from ansible_collections.evio.cni.plugins.module_utils.etcd.access import Access, EtcdError
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Etcd
from ansible_collections.evio.cni.plugins.module_utils.subnets import Pool, parse_pools

_LONGEST_WAIT = 60.0
"""Seconds after which a node must have its claim, no matter how often etcd fails meanwhile."""


def main() -> None:
    """Claim all nodes that are not in the record yet."""
    record, cluster, first, count, urls = sys.argv[1:]
    pools = parse_pools("10.0.0.0/8", 12)
    recorded = Path(record).read_text().split() if Path(record).exists() else []
    done = {line.partition("=")[0] for line in recorded}
    with Etcd(Access(endpoints=tuple(urls.split(",")), timeout=2.0)) as etcd, open(record, "a") as stream:
        for number in range(int(first), int(first) + int(count)):
            node = f"node{number}"
            if node in done:
                continue
            [cidr] = _claim(Registry(etcd, cluster), Request(node, f"machine-of-{node}"), pools)
            stream.write(f"{node}={cidr}\n")
            stream.flush()
            os.fsync(stream.fileno())


def _claim(registry: Registry, request: Request, pools: tuple[Pool, ...]) -> tuple[str, ...]:
    deadline = time.monotonic() + _LONGEST_WAIT
    while True:
        try:
            return registry.claim([request], pools).claims[request.node].cidrs
        except EtcdError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main()
