# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What nodes behind real NATs tell: the status of their overlay, the sites of the map, and the kinds of their NATs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.state import DIRECT
from ansible_collections.evio.cni.plugins.module_utils.overview.answers import NodeAnswer
from ansible_collections.evio.cni.plugins.module_utils.overview.cluster import cluster_of

from .ansible_module import run_module
from .overlay_lab import COLLECTIONS, SYMMETRIC, Node, OverlayLab, wait_until

pytestmark = pytest.mark.root

SCHEMA = json.loads((Path(__file__).resolve().parents[6] / "docs/node-status.schema.json").read_text())
TOKEN = "t" * 32
READ = """
import json, sys
from ansible_collections.evio.cni.plugins.module_utils.node.status import read_status, to_json
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.agent_files import AgentFiles
directory = sys.argv[1]
names = ("overlay.json", "pod-routes.json", "wireguard.key", "state.json")
files = AgentFiles(*(f"{directory}/{name}" for name in names))
print(json.dumps(to_json(read_status(files=files, conf_dir=directory, cri_socket="", has_pods=False))))
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[OverlayLab]:
    overlay_lab = OverlayLab(tmp_path)
    try:
        yield overlay_lab
    finally:
        overlay_lab.close()


def status(node: Node) -> dict[str, Any]:
    command = ["env", f"PYTHONPATH={COLLECTIONS}{os.pathsep}", sys.executable, "-B", "-c", READ, str(node.directory)]
    told: dict[str, Any] = json.loads(node.namespace.run(*command).stdout)
    return told


def test_nodes_behind_nats_tell_ways_and_sites(lab: OverlayLab) -> None:
    relay = lab.public_node("relay")
    routers = [lab.router() for _number in range(2)]
    first, second = (lab.node(f"home{number}", router) for number, router in enumerate(routers))
    lab.start()
    lab.wait_path(first, relay, DIRECT)
    lab.wait_path(second, relay, DIRECT)
    wait_until(lambda: first.pings(second.address, wait="1"), 20, "a ping", lab)
    lab.wait_path(first, second, DIRECT)
    lab.wait_path(second, first, DIRECT)
    # The agent's state file is written again.
    time.sleep(6)
    told = {node.name: status(node) for node in (relay, first, second)}
    for answer in told.values():
        jsonschema.validate(answer, SCHEMA)
        assert [problem for problem in answer["problems"] if "overlay" in problem["what"]] == []
    [peer] = [peer for peer in told["home0"]["overlay"]["peers"] if peer["name"] == "home1"]
    assert (peer["kind"], peer["endpoint"], peer["underlay_mtu"]) == (DIRECT, f"{routers[1].wan}:51820", 1500)
    assert peer["handshake_age"] is not None
    assert 0 <= peer["handshake_age"] < 60
    assert peer["sent_bytes"] > 84
    assert peer["received_bytes"] > 84
    assert told["home0"]["overlay"]["mtu"] == lab.mtu
    endpoints = {"relay": relay.endpoint or ""}
    answers = [NodeAnswer(name, answer, public_endpoint=endpoints.get(name, "")) for name, answer in told.items()]
    cluster = cluster_of("lab", answers, None, None, time.time())
    assert {site.address: (site.kind, site.nodes) for site in cluster.sites} == {
        "198.51.100.11": ("public", ("relay",)),
        routers[0].wan: ("NAT", ("home0",)),
        routers[1].wan: ("NAT", ("home1",)),
    }
    assert {way.ends: way.kind for way in cluster.ways} == {
        ("relay", "home0"): DIRECT,
        ("relay", "home1"): DIRECT,
        ("home0", "home1"): DIRECT,
    }


def test_two_relays_tell_the_kind_of_a_nat(lab: OverlayLab, tmp_path: Path) -> None:
    relays = [lab.public_node(f"relay{number}") for number in range(2)]
    kind_one = lab.node("home0", lab.router())
    kind_two = lab.node("home1", lab.router(SYMMETRIC))
    wanted = {
        relays[0].name: (relays[0], "none"),
        kind_one.name: (kind_one, "endpoint-independent"),
        kind_two.name: (kind_two, "endpoint-dependent"),
    }
    with ThreadPoolExecutor(2) as threads:
        for relay in relays:
            threads.submit(run_module, "nat_responder", namespace=relay.namespace, nat_token=TOKEN, seconds=40)
        for relay in relays:
            wait_until(lambda node=relay: "51820" in node.namespace.run("ss", "-uln").stdout, 20, "responder", lab)
        found = {}
        for name, (node, _kind) in wanted.items():
            found[name] = run_module(
                "preflight_info",
                namespace=node.namespace,
                host_cidr="10.10.0.0/16",
                pod_cidrs=["10.244.0.0/16"],
                conf_dir=str(tmp_path),
                relays={relay.name: relay.endpoint for relay in relays if relay is not node},
                nat_token=TOKEN,
            )
    assert {name: result["nat"] for name, result in found.items()} == {
        name: kind for name, (_n, kind) in wanted.items()
    }
    [row] = [row for row in found["home1"]["rows"] if row["check"] == "NAT"]
    assert row["state"] == "warning"
    assert "evio_public_endpoint" in row["remedy"]
