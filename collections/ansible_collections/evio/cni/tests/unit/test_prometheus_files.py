# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The alert rules fire when they should, and every query of rules and dashboard finds something in real metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.evio.cni.plugins.module_utils.node.exposition import render
from ansible_collections.evio.cni.plugins.module_utils.node.metrics import METRICS

from .metrics_example import example_families
from .promtool import promtool

FILES = Path(__file__).resolve().parents[6] / "deploy/prometheus"
RULES = yaml.safe_load((FILES / "evio.rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
TESTS = yaml.safe_load((FILES / "evio.rules.test.yml").read_text())["tests"]

_COMPARISON = r"\s(?:==|>|<)\s[\d.]+$"
"""The end of a rule's expression, which is true only when something is wrong."""


def dashboard_queries() -> list[str]:
    """The dashboard's queries, with what Grafana puts in place of its variables.

    A query that counts what is wrong, or else shows 0, would always find something: it is tested without both.
    """
    return [
        re.sub(r" == 0\) or vector\(0\)$", ")", target["expr"])
        .replace("$__rate_interval", "5m")
        .replace("$instance", ".*")
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]


def rule_queries() -> list[str]:
    return [re.sub(_COMPARISON, "", rule["expr"]) for rule in RULES]


def series() -> list[dict[str, str]]:
    """The example's samples as Prometheus scrapes them: with the label instance, and without change for 20 minutes."""
    found = []
    for line in render(example_families()).splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()  # type: ignore[union-attr]
            own = f'{{instance="node3:9100"{"," + labels if labels else ""}}}'
            # In promtool's notation a value with an exponent or a sign would not be read.
            found.append({"series": f"{name}{own}", "values": f"{float(value):f}x20"})
    return found


def check_that_queries_find_something(queries: list[str], tmp_path: Path) -> None:
    test = {
        "interval": "1m",
        "input_series": series(),
        "promql_expr_test": [
            {"expr": f"count({query}) > bool 0", "eval_time": "19m", "exp_samples": [{"labels": "{}", "value": 1}]}
            for query in queries
        ],
    }
    path = tmp_path / "queries.test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", path)


def test_rules_are_valid_and_their_tests_pass() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", FILES / "evio.rules.yml")
    assert "SUCCESS" in promtool("test", "rules", FILES / "evio.rules.test.yml")


def test_each_rule_is_seen_to_fire_and_to_be_silent() -> None:
    fired, silent = set(), set()
    for test in TESTS:
        for case in test["alert_rule_test"]:
            (fired if case["exp_alerts"] else silent).add(case["alertname"])
    assert fired == silent == {rule["alert"] for rule in RULES}


def test_queries_of_the_rules_find_something_in_real_metrics(tmp_path: Path) -> None:
    check_that_queries_find_something(rule_queries(), tmp_path)


def test_queries_of_the_dashboard_find_something_in_real_metrics(tmp_path: Path) -> None:
    check_that_queries_find_something(dashboard_queries(), tmp_path)


@pytest.mark.parametrize(
    "query", ["evio_overlay_peers{kind='director'}", "evio_no_metric", "sum by (le) (evio_fenced["]
)
def test_a_query_that_finds_nothing_is_found_out(query: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        check_that_queries_find_something([query], tmp_path)


def names_and_labels(text: str) -> Iterator[tuple[str, str]]:
    """The metrics that are named in an expression, each with the labels of its matchers."""
    yield from re.findall(r"\b(evio_\w+)(?:\{([^}]*)\})?", text)


@pytest.mark.parametrize("query", [*rule_queries(), *dashboard_queries()])
def test_metrics_and_labels_of_queries_exist(query: str) -> None:
    labels = {label for metric in METRICS.values() for label in metric.labels} | {"instance", "le"}
    for name, matchers in names_and_labels(query):
        metric = METRICS[re.sub(r"_(bucket|count|sum)$", "", name)]
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= {*metric.labels, "instance", "le"}
    for group in re.findall(r"\bby \(([^)]*)\)", query):
        assert set(group.split(", ")) <= labels


def test_legends_name_labels_that_the_query_leaves() -> None:
    targets: list[dict[str, Any]] = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for target in targets:
        groups = re.findall(r"\bby \(([^)]*)\)", target["expr"])
        names = [METRICS[name] for name, _matchers in names_and_labels(target["expr"]) if name in METRICS]
        left = set(groups[0].split(", ")) if groups else {"instance", *names[0].labels} if names else set()
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left, target


def test_panels_have_ids_titles_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken
        taken |= cells


def lost(told: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Yield the place of each value that is not kept."""
    if isinstance(told, dict) and isinstance(kept, dict):
        for key, value in told.items():
            yield from lost(value, kept[key], f"{path}.{key}") if key in kept else [f"{path}.{key}"]
    elif isinstance(told, list) and isinstance(kept, list) and len(told) == len(kept):
        for number, pair in enumerate(zip(told, kept, strict=True)):
            yield from lost(*pair, f"{path}[{number}]")
    elif told != kept:
        yield path


def test_dashboard_has_nothing_that_grafanas_own_types_do_not_know() -> None:
    # Written by Grafana Labs from the schema of Grafana; panels and queries have their own types.
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins", reason="run make setup")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()

    def read(dashboard: dict[str, Any]) -> Any:
        return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))

    assert list(lost(DASHBOARD, read(DASHBOARD))) == []
    misspelt = json.loads(json.dumps(DASHBOARD).replace('"legendFormat"', '"legendFromat"'))
    assert any(place.endswith("legendFromat") for place in lost(misspelt, read(misspelt)))
