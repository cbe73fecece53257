# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Numbers and texts of the inventory that cannot work are told before anything is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.evio.cni.plugins.module_utils.inventory.limits import COMMAND_LINE_PATHS, LIMITS, value_fault

ROLES = Path(__file__).resolve().parents[2] / "roles"

CHECKED_AS_A_WHOLE = {
    "evio_mtu",
    "evio_topology_interval",
    "evio_min_successors",
    "evio_max_long_distance_edges",
    "evio_max_on_demand_edges",
}
"""Numbers that inventory/cluster and overlay/edgevpn/schema check."""


def options() -> dict[str, dict[str, Any]]:
    specs = (yaml.safe_load(path.read_text())["argument_specs"] for path in ROLES.glob("*/meta/argument_specs.yml"))
    return {name: option for roles in specs for spec in roles.values() for name, option in spec["options"].items()}


def test_each_number_that_people_set_has_limits() -> None:
    numbers = {name for name, option in options().items() if option["type"] in ("int", "float")}
    numbers = {name for name in numbers if not name.startswith("__")}
    assert numbers - CHECKED_AS_A_WHOLE == set(LIMITS)
    assert set(COMMAND_LINE_PATHS) <= set(options())


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("evio_metrics_port", 0, None),
        ("evio_metrics_port", 65535, None),
        ("evio_metrics_port", 65536, "evio_metrics_port: 65536 is not between 0 and 65535"),
        ("evio_metrics_port", -1, "evio_metrics_port: -1 is not between 0 and 65535"),
        ("evio_overlay_port", 0, "evio_overlay_port: 0 is not between 1 and 65535"),
        ("evio_ovs_timeout", 0.5, "evio_ovs_timeout: 0.5 is not between 1 and 86400"),
        ("evio_mtu", 9, None),
        ("evio_metrics_textfile_directory", "", None),
        ("evio_metrics_textfile_directory", "/var/lib/prometheus/node-exporter", None),
        ("evio_metrics_textfile_directory", "node-exporter", "is not an absolute path"),
        ("evio_metrics_textfile_directory", "/srv/my metrics", "is not an absolute path without blanks"),
        ("evio_cni_conf_dir", "/etc/cni/%h", "is not an absolute path"),
        ("evio_cni_conf_dir", "/etc/cni\nExecStart=/bin/sh", "is not an absolute path"),
        ("evio_metrics_allowed_cidrs", ["10.10.0.0/16", "fd00::/64"], None),
        ("evio_metrics_allowed_cidrs", ["10.10.0.0/16", "10.10.0.1"], "'10.10.0.1' is not a network in CIDR notation"),
    ],
)
def test_value_outside_of_its_limits_is_named(name: str, value: Any, fault: str | None) -> None:
    found = value_fault(name, value)
    assert (found is None) == (fault is None)
    assert fault is None or fault in str(found)
