# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Misspelt variables and groups are refused with the nearest right name; the site's own names are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.inventory.spelling import (
    GROUPS,
    SpellingError,
    check_extra_variables,
    check_groups,
    check_run,
    check_variables,
)
from ansible_collections.evio.cni.plugins.plugin_utils.role_options import role_options

REPOSITORY = Path(__file__).resolve().parents[6]
KNOWN = set(role_options())
GOOD_GROUPS = {"all": ["node1"], "evio_nodes": ["node1"], "evio_control_plane": ["node1"]}


@pytest.mark.parametrize(
    ("misspelt", "right"),
    [
        ("evio_pod_cdir", "evio_pod_cidr"),
        ("evio_podcidr", "evio_pod_cidr"),
        ("evio_pod_cidrs", "evio_pod_cidr"),
        ("evio_mtuu", "evio_mtu"),
        ("evio_Mtu", "evio_mtu"),
        ("EVIO_MTU", "evio_mtu"),
        ("eivo_overlay", "evio_overlay"),
        ("evio_etcd_endpoint", "evio_etcd_endpoints"),
        ("evio_public_enpoint", "evio_public_endpoint"),
        ("evio_host_overlay_adress", "evio_host_overlay_address"),
        ("evio_leaving_node", "evio_leaving_nodes"),
        ("eviopod_cidr", "evio_pod_cidr"),
    ],
)
def test_misspelt_variable_is_refused_with_the_nearest_name(misspelt: str, right: str) -> None:
    with pytest.raises(SpellingError, match=rf"^{misspelt} \(node2\): .* is it {right}\?"):
        check_variables(KNOWN, {"node1": ["evio_mtu"], "node2": ["ansible_host", misspelt]})


def test_variable_that_resembles_none_is_refused_too() -> None:
    with pytest.raises(SpellingError, match=r"(?s)evio_zzz .* evio_extra_names"):
        check_variables(KNOWN, {"node1": ["evio_zzz"]})


def test_variable_of_the_site_is_accepted_if_it_is_named_as_such_or_has_another_prefix() -> None:
    own = [
        "evio_backup",
        "vault_evio_turn",
        "my_evio_mtu",
        "environment",
        "evidence",
        "vip_port",
        "ansible_port",
        "pod_cidr",
    ]
    check_variables(KNOWN, {"node1": [*KNOWN, *own, "__evio_node_subnet"]}, ["evio_backup"])


def test_message_stays_short_when_many_names_are_unknown() -> None:
    with pytest.raises(SpellingError, match="and 90 more") as refused:
        check_variables(KNOWN, {f"node{i}": [f"evio_x{i}" for i in range(100)] for i in range(50)})
    assert len(str(refused.value)) < 2000
    assert "node0, node1, node2 and 47 more hosts" in str(refused.value)


@pytest.mark.parametrize(
    ("misspelt", "right"),
    [
        ("evio_nodse", "evio_nodes"),
        ("evio_node", "evio_nodes"),
        ("evio-nodes", "evio_nodes"),
        ("evionodes", "evio_nodes"),
        ("Evio_Nodes", "evio_nodes"),
        ("eivo_nodes", "evio_nodes"),
        ("evio_control_plan", "evio_control_plane"),
        ("evio_controlplane", "evio_control_plane"),
        ("evio_pods_nodes", "evio_pod_nodes"),
        ("evio_signaling", "evio_signalling"),
    ],
)
def test_misspelt_group_is_refused_with_the_nearest_name(misspelt: str, right: str) -> None:
    with pytest.raises(SpellingError, match=rf"^group {misspelt}: .* is it {right}\?"):
        check_groups({**GOOD_GROUPS, misspelt: ["node2"]})


def test_file_of_a_misspelt_group_is_refused() -> None:
    with pytest.raises(SpellingError, match=r"^group_vars of evio_nods: .* is it evio_nodes\?"):
        check_groups(GOOD_GROUPS, files=["all", "evio_nods"])


def test_groups_of_the_site_are_accepted() -> None:
    own = ["ungrouped", "evio_berlin", "evio_edge_nodes", "nodes", "control_plane", "kube_node", "webservers"]
    check_groups({**GOOD_GROUPS, **{group: ["node1"] for group in own}}, files=["all", *own])
    check_groups({**GOOD_GROUPS, "evio_nodes2": ["node1"]}, ["evio_nodes2"])


@pytest.mark.parametrize("missing", ["evio_nodes", "evio_control_plane"])
def test_inventory_without_a_required_group_is_refused(missing: str) -> None:
    groups = {group: hosts for group, hosts in GOOD_GROUPS.items() if group != missing}
    with pytest.raises(SpellingError, match=f"^group {missing}: the inventory has no host in it"):
        check_groups(groups)


def test_every_variable_that_playbooks_and_inventories_use_is_known() -> None:
    collection = "collections/ansible_collections/evio/cni"
    files = [
        path
        for directory in ("inventories", "molecule", f"{collection}/playbooks", f"{collection}/roles")
        for path in (REPOSITORY / directory).rglob("*.y*ml")
    ]
    assert len(files) > 40
    text = "\n".join(re.sub(r"(?m)^\s*#.*$", "", path.read_text()) for path in files)
    # Not parts of paths and of other names. The last are a directory in molecule and a file of tasks.
    used = set(re.findall(r"(?<![\w.:/])evio_[a-z_]+(?![\w.])", text)) - {"evio_cni", "evio_package"}
    assert used - KNOWN - set(GROUPS) == set()


@pytest.mark.parametrize(
    ("run", "run_groups", "message"),
    [
        (["node1"], ["evio_pod_nodes"], "group evio_pod_nodes: the inventory has no host in it"),
        (["web1"], ["evio_nodes", "evio_signalling"], "evio_nodes or evio_signalling, .* is --limit right"),
    ],
)
def test_run_that_has_no_host_of_its_groups_is_refused(run: list[str], run_groups: list[str], message: str) -> None:
    with pytest.raises(SpellingError, match=message):
        check_run(GOOD_GROUPS, run, run_groups)


def test_run_with_one_host_of_its_groups_is_accepted() -> None:
    check_run(GOOD_GROUPS, ["web1", "node1"], GROUPS)


def test_extra_variable_without_its_prefix_is_refused() -> None:
    with pytest.raises(SpellingError, match=r"^teardown_keep \(--extra-vars\): .* is it evio_teardown_keep\?"):
        check_extra_variables(KNOWN, ["evio_mtu", "site_name", "teardown_keep"])


def test_extra_variables_of_the_site_are_accepted() -> None:
    # Only exact names are ours, and the site can say that one is its own.
    check_extra_variables(KNOWN, ["evio_mtu", "mtu_", "MTU", "mtus", "ansible_host", "cluster"], ["cluster"])


def test_extra_variables_may_have_names_that_are_no_text() -> None:
    check_extra_variables(KNOWN, [1, "site_name", None])  # type: ignore[list-item]
