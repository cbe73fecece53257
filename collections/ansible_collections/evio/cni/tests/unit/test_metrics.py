# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The metrics are what the page says, promtool finds nothing wrong with them, and nobody's names become many series."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.node.exposition import (
    COUNTER,
    HISTOGRAM,
    Family,
    Histogram,
    Metric,
    render,
)
from ansible_collections.evio.cni.plugins.module_utils.node.metrics import METRICS, families_of
from ansible_collections.evio.cni.plugins.module_utils.node.model import Claim, Peer

from .metrics_example import counters, example_families, node_status, overlay
from .promtool import lint

PAGE = Path(__file__).resolve().parents[6] / "docs/metrics.md"


def lines(status_changes: dict[str, object]) -> set[str]:
    return set(render(families_of(node_status(**status_changes), counters(), 0)).splitlines())


def test_promtool_finds_nothing_wrong() -> None:
    assert lint(render(example_families())) == ""


def test_example_has_a_sample_of_each_metric() -> None:
    assert [family.metric.name for family in example_families() if not family.samples] == []


def test_page_lists_each_metric_with_type_and_labels() -> None:
    rows = re.findall(r"^\| `(evio_\w+)` \| (\w+) \| (.*?) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _meaning in rows}
    assert listed == {name: (metric.type, metric.labels) for name, metric in METRICS.items()}
    assert all(len(meaning) > 10 for *_rest, meaning in rows)


def test_samples_are_those_of_the_node() -> None:
    told = lines({"claim": Claim(("10.244.3.0/24",), 9, "its subnet is another node's")})
    assert {
        "evio_fenced 1",
        "evio_claim_epoch 9",
        'evio_attachments{network="evio",state="plugged in"} 1',
        'evio_attachments{network="evio",state="gone"} 0',
        'evio_pod_addresses{network="evio",subnet="10.244.3.0/24"} 253',
        'evio_pod_addresses_reserved{network="evio",subnet="10.244.3.0/24"} 1',
        'evio_overlay_peers{kind="direct"} 1',
        'evio_overlay_peers{kind="none"} 0',
        'evio_overlay_peer_handshake_age_seconds{peer="cloud1"} 12.5',
        'evio_overlay_peer_rtt_seconds{peer="cloud1"} 0.0045',
        'evio_cni_call_duration_seconds_bucket{verb="ADD",le="0.01"} 0',
        'evio_cni_call_duration_seconds_bucket{verb="ADD",le="0.02"} 1',
        'evio_cni_call_duration_seconds_bucket{verb="ADD",le="+Inf"} 2',
        'evio_cni_call_duration_seconds_count{verb="ADD"} 2',
        'evio_cni_call_duration_seconds_sum{verb="ADD"} 35',
        'evio_cni_failures_total{verb="ADD",code="11"} 1',
        'evio_cni_failures_total{verb="ADD",code="other"} 1',
        'evio_cni_failures_total{verb="DEL",code="11"} 0',
        'evio_repairs_total{kind="plugged"} 2',
        "evio_fences_total 1",
        'evio_certificate_expiry_time_seconds{path="/etc/evio-etcd/server.crt"} 1790001000',
    } <= told


def test_an_overlay_that_is_silent_or_has_a_fault_is_not_up() -> None:
    up = overlay()
    assert "evio_overlay_up 1" in lines({"overlay": up})
    assert "evio_overlay_up 0" in lines({"overlay": replace(up, age_seconds=21.0)})
    assert "evio_overlay_up 0" in lines({"overlay": replace(up, fault="the key is missing")})
    assert "evio_overlay_up 0" in lines({"overlay": None, "overlay_fault": "no state"})
    assert not [line for line in lines({"overlay": None}) if line.startswith("evio_overlay_up")]


def test_what_is_not_known_has_no_sample() -> None:
    text = render(families_of(node_status(networks=(), claim=None, overlay=None), None, 1))
    assert "evio_metrics_faults 1" in text
    for name in ("evio_attachments", "evio_fenced", "evio_overlay", "evio_cni", "evio_repairs"):
        assert name not in text


def test_pods_and_containers_are_no_labels() -> None:
    text = render(example_families())
    assert "web-0" not in text
    assert "0" * 64 not in text


@pytest.mark.parametrize("name", ['a"} 1\nevil 2', "back\\slash", "x" * 5000, "\u2028\u202e\x00", "\ud800"])
def test_hostile_name_of_a_peer_stays_one_short_label(name: str) -> None:
    hostile = overlay(Peer(name, "10.10.0.9", "direct", "direct", 1.0, None, False, 3.0, 1, 1))
    text = render(families_of(node_status(overlay=hostile), counters(), 0))
    assert lint(text) == ""
    assert len([line for line in text.split("\n") if line.startswith("evio_overlay_peer_rtt_seconds{")]) == 1
    assert "\nevil" not in text
    assert max(map(len, text.split("\n"))) < 500


def test_buckets_of_a_histogram_are_cumulative() -> None:
    family = Family(Metric("h_seconds", HISTOGRAM, "H."), {(): Histogram((0.5, 1), [2, 3, 4], 7.25)})
    assert render([family]).splitlines()[2:] == [
        'h_seconds_bucket{le="0.5"} 2',
        'h_seconds_bucket{le="1"} 5',
        'h_seconds_bucket{le="+Inf"} 9',
        "h_seconds_sum 7.25",
        "h_seconds_count 9",
    ]


def test_counters_end_in_total_and_nothing_else_does() -> None:
    assert {name for name, metric in METRICS.items() if metric.type == COUNTER} == {
        name for name in METRICS if name.endswith("_total")
    }
