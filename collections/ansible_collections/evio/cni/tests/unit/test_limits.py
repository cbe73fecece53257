# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Numbers and texts of the inventory that cannot work are told before anything is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.evio.cni.plugins.module_utils.inventory.limits import (
    COMMAND_LINE_PATHS,
    LIMITS,
    dictionary_fault,
    keep_fault,
    value_fault,
)
from ansible_collections.evio.cni.plugins.plugin_utils.role_options import installed_packages

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
        *(("evio_upgrade_serial", serial, None) for serial in ("1", "12", "1%", "50%", "100%")),
        *(
            ("evio_upgrade_serial", serial, "is neither a number of nodes, from 1 on, nor a percentage")
            for serial in (
                "0",
                "-1",
                "0%",
                "101%",
                "-5%",
                "50x",
                "foo",
                "",
                "1.5",
                "1,2",
                "['1', '2']",
                "1\n",
                "\u0663",
            )
        ),
        *(("evio_kubeadm_token_ttl", time, None) for time in ("15m", "1h30m", "0.5h", "90s")),
        *(
            ("evio_kubeadm_token_ttl", time, "Go's notation")
            for time in ("15", "0", "0s", "15 m", "1d", "-5m", "", "m")
        ),
        *(("evio_turn_relay_ports", ports, None) for ports in ("49152-65535", "3000-3000")),
        *(
            ("evio_turn_relay_ports", ports, "is not the first and the last port")
            for ports in ("49152", "60000-50000", "0-100", "1-65536", "a-b", "1 - 2", "")
        ),
        ("evio_metrics_allowed_cidrs", ["10.10.0.0/16", "fd00::/64"], None),
        ("evio_metrics_allowed_cidrs", ["10.10.0.0/16", "10.10.0.1"], "'10.10.0.1' is not a network in CIDR notation"),
    ],
)
def test_value_outside_of_its_limits_is_named(name: str, value: Any, fault: str | None) -> None:
    found = value_fault(name, value)
    assert (found is None) == (fault is None)
    assert fault is None or fault in str(found)


@pytest.mark.parametrize(
    "kept", [(), ("claims", "containerd"), ("packages",), ("openvswitch-switch", "coturn"), ("libsite1", "claims")]
)
def test_things_that_stay_are_accepted(kept: tuple[str, ...]) -> None:
    assert keep_fault(kept, [*installed_packages(), "libsite1:amd64", "libsite2=1.0-2"]) is None


@pytest.mark.parametrize(
    ("entry", "nearest"),
    [
        ("claim", "is it claims?"),
        ("Claims", "is it claims?"),
        ("packges", "is it packages?"),
        ("conteinerd", "is it containerd?"),
        ("openvswitch-swich", "is it openvswitch-switch?"),
        ("etcd", "claims (etcd with its data and certificates)"),
        ("none", "packages (all of them)"),
        ("libsite1:amd64", "is it libsite1?"),
    ],
)
def test_entry_that_keeps_nothing_is_refused_with_the_nearest_that_does(entry: str, nearest: str) -> None:
    fault = keep_fault(("containerd", entry), [*installed_packages(), "libsite1:amd64"])
    assert fault is not None
    assert f"{entry!r} names nothing that could stay" in fault
    assert nearest in fault


@pytest.mark.parametrize(
    ("value", "is_dictionary"), [("a=b", True), ('{"a": "b"}', True), ({"a": "b"}, True), ("node3", False), ("", False)]
)
def test_text_that_is_no_dictionary_is_told_with_the_form_and_without_the_text(value: Any, is_dictionary: bool) -> None:
    assert (dictionary_fault("evio_rename", value) is None) == is_dictionary
    assert (dictionary_fault("evio_xmpp_host_account", value) is None) == is_dictionary
    if not is_dictionary:
        assert "former=new" in str(dictionary_fault("evio_rename", value))
        assert "node3" not in str(dictionary_fault("evio_xmpp_host_account", value))
