# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""bootstrap.yml refuses a wrong inventory before it connects to any host, and needs no rights on the control machine.

The hosts of the inventory cannot be reached: a run that gets past the checks ends with "unreachable".
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[6]

INVENTORY: dict[str, Any] = {
    "all": {
        # Nothing listens on port 1.
        "vars": {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_user": "root"},
        "children": {
            "evio_nodes": {
                "hosts": {
                    "node1": {"evio_host_overlay_address": "10.10.0.1", "evio_public_endpoint": "198.51.100.11"},
                    "node2": {"evio_host_overlay_address": "10.10.0.2"},
                }
            },
            "evio_control_plane": {"hosts": {"node1": {}}},
        },
    }
}


def run(
    directory: Path, *arguments: str, playbook: str = "bootstrap.yml", code: int | None = None, **variables: Any
) -> str:
    """Return the output of the playbook, with these variables for all hosts. It fails, unless ``code`` is 0."""
    inventory = copy.deepcopy(INVENTORY)
    inventory["all"]["vars"].update(variables)
    (directory / "hosts.json").write_text(json.dumps(inventory))
    result = call(directory / "hosts.json", playbook, *arguments)
    assert (result.returncode == 0) == (code == 0), result.stdout
    return result.stdout + result.stderr


def call(inventory: Path, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(inventory), str(REPOSITORY / "playbooks" / playbook), *arguments),
        ],
        env={**os.environ, "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "arguments", "message"),
    [
        (
            {"evio_pod_cdir": "10.1.0.0/16"},
            (),
            "evio_pod_cdir (node1, node2): nothing reads this variable; is it evio_pod_cidr?",
        ),
        ({}, ("-e", "evio_ovelay=evio"), "is it evio_overlay?"),
    ],
)
@pytest.mark.parametrize("playbook", ["bootstrap.yml", "remove_node.yml"])
def test_misspelt_variable_of_any_scope_ends_the_run_before_a_host_is_asked(
    tmp_path: Path, variables: dict[str, Any], arguments: tuple[str, ...], message: str, playbook: str
) -> None:
    output = run(tmp_path, *arguments, playbook=playbook, **variables)
    assert message in output
    assert "UNREACHABLE" not in output


def test_misspelt_variable_in_host_vars_is_named_with_its_host(tmp_path: Path) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/node2.yml").write_text("evio_public_enpoint: 203.0.113.7\n")
    output = run(tmp_path)
    assert "evio_public_enpoint (node2): nothing reads this variable; is it evio_public_endpoint?" in output


def test_misspelt_group_is_refused_although_its_plays_have_no_host(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    assert "UNREACHABLE" in run(tmp_path)
    (tmp_path / "more.ini").write_text("[evio_nodse]\nnode3\n")
    output = run(tmp_path, "-i", str(tmp_path / "more.ini"))
    assert "group evio_nodse: nothing reads it; is it evio_nodes?" in output
    (tmp_path / "group_vars/evio_contol_plane.yml").touch()
    assert "group_vars of evio_contol_plane: nothing reads it; is it evio_control_plane?" in run(tmp_path)


@pytest.mark.parametrize(
    "arguments", [("--become", "-e", "ansible_become_exe=/bin/false"), ("-e", "ansible_become=true")]
)
def test_checks_need_no_rights_on_the_control_machine(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    output = run(
        tmp_path,
        *arguments,
        ansible_become_exe="/bin/false",
        ansible_become_user="nobody-here",
        ansible_python_interpreter="/nonexistent/python",
    )
    # The first task that needs the hosts reads their identities; the checks before it have passed.
    assert output.count("UNREACHABLE") == 2
    assert "evio.cni.cluster : Read which node each machine says it is" in output
    assert "sudo" not in output


PLAYBOOKS = sorted(path.name for path in (REPOSITORY / "playbooks").glob("*.yml"))


def run_without_hosts(directory: Path, playbook: str, *arguments: str) -> str:
    """Return the output of the playbook with an inventory that does not exist, or that the arguments name. It fails."""
    done = call(directory / "nowhere", playbook, *arguments)
    assert done.returncode != 0, done.stdout
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_mistyped_inventory_is_an_error_of_each_playbook(tmp_path: Path, playbook: str) -> None:
    output = run_without_hosts(tmp_path, playbook)
    assert "group evio_nodes: the inventory has no host in it" in output
    assert "whether the path after -i is right" in output


@pytest.mark.parametrize("playbook", ["bootstrap.yml", "status.yml"])
def test_mistyped_inventory_is_an_error_with_a_limit_too(tmp_path: Path, playbook: str) -> None:
    output = run_without_hosts(tmp_path, playbook, "--limit", "node1")
    assert "the inventory has no host; is the path after -i right?" in output


def test_limit_to_hosts_of_no_group_of_the_playbook_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "more.ini").write_text("web1\n")
    extra = ("-i", str(tmp_path / "more.ini"), "--limit")
    assert "no host of this run is in the group evio_nodes" in " ".join(run(tmp_path, *extra, "web1").split())
    output = " ".join(run(tmp_path, *extra, "node2", playbook="backup.yml").split())
    assert "no host of this run is in the group evio_control_plane" in output


def test_repair_of_a_site_without_pod_nodes_is_an_error(tmp_path: Path) -> None:
    output = run(tmp_path, playbook="repair.yml")
    assert "group evio_pod_nodes: the inventory has no host in it, so there is nothing to do" in output


FROM_ETCD = "--start-at-task=Check that etcd answers, unless this playbook starts it"
"""Past the tasks that need the hosts, which do not exist."""


@pytest.mark.parametrize("off", ["false", "no"])
def test_boolean_given_as_a_string_is_no_truth(tmp_path: Path, off: str) -> None:
    # etcd is asked, because the playbook does not start it.
    assert "evio.cni.node_subnet : Check that etcd answers" in run(
        tmp_path, FROM_ETCD, "-e", f"evio_etcd_managed={off}"
    )


def test_etcd_that_the_playbook_starts_is_not_asked(tmp_path: Path) -> None:
    output = run(tmp_path, FROM_ETCD, "-e", "evio_etcd_managed=true")
    assert "evio.cni.node_subnet : Check that etcd answers" not in output
    assert "UNREACHABLE" in output


def test_managed_etcd_on_two_hosts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "more.ini").write_text("[evio_control_plane]\nnode2\n")
    output = run(tmp_path, "-i", str(tmp_path / "more.ini"), "-e", "evio_etcd_managed=yes")
    assert (
        "evio_control_plane: it has 2 hosts (node1, node2), but evio_etcd_managed runs an etcd of one member"
        in " ".join(output.split())
    )
    assert "UNREACHABLE" not in output


def test_overlay_alone_needs_no_etcd_and_no_kubernetes(tmp_path: Path) -> None:
    output = run(tmp_path, "--list-tasks", playbook="overlay.yml", evio_kubernetes="kubeadm", code=0)
    for task in (
        "Refuse misspelt variables",
        "Refuse a host that has a network of its own",
        "evio.cni.overlay : Bring up",
    ):
        assert task in output
    for role in ("evio.cni.node_subnet", "evio.cni.etcd", "evio.cni.kubelet", "evio.cni.kubernetes", "evio.cni.cni "):
        assert role not in output


def test_stacked_etcd_of_a_cluster_that_is_not_made_yet_is_not_asked(tmp_path: Path) -> None:
    plan = {"primary": "node1", "initialises": True, "joining": ["node2"], "etcd_is_expected": False}
    output = run(tmp_path, FROM_ETCD, "-e", json.dumps({"evio_kubernetes": "kubeadm", "__evio_kubernetes_plan": plan}))
    assert "evio.cni.node_subnet : Check that etcd answers" not in output
    plan["etcd_is_expected"] = True
    output = run(tmp_path, FROM_ETCD, "-e", json.dumps({"evio_kubernetes": "kubeadm", "__evio_kubernetes_plan": plan}))
    assert "evio.cni.node_subnet : Check that etcd answers" in output


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"evio_kubernetes": "k3s"}, "evio_kubernetes: 'k3s' is not one of none, kubeadm, existing"),
        ({"evio_kubernetes": "kubeadm"}, "group evio_pod_nodes: it has no host, but evio_kubernetes is kubeadm"),
    ],
)
@pytest.mark.parametrize("playbook", ["bootstrap.yml", "overlay.yml"])
def test_settings_of_kubernetes_are_checked_before_a_host_is_asked(
    tmp_path: Path, playbook: str, variables: dict[str, str], message: str
) -> None:
    output = run(tmp_path, playbook=playbook, **variables)
    assert message in " ".join(output.split())
    assert "UNREACHABLE" not in output


def test_wrong_value_of_any_role_is_refused_before_a_host_is_asked(tmp_path: Path) -> None:
    output = run(tmp_path, evio_datapath="kernel", evio_overlay_port="wireguard")
    # The value that all hosts share is told once.
    assert "node1: value of evio_datapath must be one of: auto, system, netdev, got: kernel" in output
    assert "node2:" not in output
    assert "node1: argument 'evio_overlay_port' is of type" in " ".join(output.split())
    assert "UNREACHABLE" not in output


def test_number_outside_of_its_limits_is_refused_before_a_host_is_asked(tmp_path: Path) -> None:
    for port in (65536, "-1"):
        output = run(tmp_path, evio_metrics_port=port)
        assert f"node1: evio_metrics_port: {port} is not between 0 and 65535" in " ".join(output.split())
        assert "UNREACHABLE" not in output


def test_wrong_value_of_one_host_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/node2.yml").write_text("evio_node_replaced: perhaps\n")
    output = " ".join(run(tmp_path, evio_node_replaced=False).split())
    assert "node2: argument 'evio_node_replaced' is of type" in output
    assert "UNREACHABLE" not in output


def test_value_that_needs_a_default_of_a_role_is_no_error(tmp_path: Path) -> None:
    # Only the roles know evio_etcd_pki_dir; the run goes on to the hosts.
    assert "UNREACHABLE" in run(tmp_path, evio_etcd_ca_cert="{{ evio_etcd_pki_dir }}/site.crt")


@pytest.mark.parametrize(
    ("playbook", "arguments", "message"),
    [
        ("change_mtu.yml", (), "evio_mtu: not given; say how many bytes, as in -e evio_mtu=1380"),
        ("change_mtu.yml", ("evio_mtu=1380", "evio_drain=true"), "evio_kubernetes is none, so no node can be drained"),
        ("change_pool.yml", ("evio_drain=true",), "evio_kubernetes is none, so no node can be drained"),
        ("change_pool.yml", ("evio_moving_nodes=node9",), "evio_moving_nodes: node9 is not in the group evio_nodes"),
        ("change_pool.yml", ("evio_overlay=evio", "evio_pod_mode=none"), "evio_pod_mode: pods have a network that is"),
        ("rename_node.yml", (), "evio_rename: not given; say which nodes get which name"),
        ("rename_node.yml", ("evio_rename=node3",), "evio_rename: the text is no dictionary; give former=new"),
        ("rename_node.yml", ("evio_rename=node2=node1",), "node2 is still in the inventory"),
        ("rename_node.yml", ("evio_rename=old=node9",), "node9 is not in the group evio_nodes"),
        (
            "restore.yml",
            (),
            "evio_backup_file: not given; say which backup is restored, as in -e evio_backup_file=FILE",
        ),
        ("restore.yml", ("evio_backup_file=/nowhere/claims.json",), "there is no backup /nowhere/claims.json"),
        ("rotate.yml", ("evio_rotate=xmpp",), "evio_rotate is xmpp, and the overlay of this cluster is wireguard"),
        ("rotate.yml", ("evio_rotate=turn", "evio_overlay=evio"), "evio_xmpp_host is no host of the group"),
        (
            "teardown.yml",
            ("evio_teardown_keep=claim",),
            "evio_teardown_keep: 'claim' names nothing that could stay; is",
        ),
        ("teardown.yml", ("evio_teardown_keep=containerd,etcd",), "evio_teardown_keep: 'etcd' names nothing"),
        ("teardown.yml", ("teardown_keep=claims",), "teardown_keep (--extra-vars): no role of this collection reads"),
        ("upgrade.yml", ("evio_upgrade_serial=0",), "evio_upgrade_serial: '0' is neither a number of nodes, from 1 on"),
        ("upgrade.yml", ("evio_upgrade_serial=50x",), "evio_upgrade_serial: '50x' is neither a number of nodes"),
        ("change_mtu.yml", ("mtu=1380",), "mtu (--extra-vars): no role of this collection reads this variable; is it"),
    ],
)
def test_mistyped_order_is_refused_before_a_host_is_asked(
    tmp_path: Path, playbook: str, arguments: tuple[str, ...], message: str
) -> None:
    output = run(tmp_path, *(word for argument in arguments for word in ("-e", argument)), playbook=playbook)
    assert message in " ".join(output.split()), output
    assert "UNREACHABLE" not in output


@pytest.mark.parametrize(
    ("playbook", "arguments"),
    [
        ("change_mtu.yml", ("evio_mtu=1380",)),
        ("change_pool.yml", ("evio_moving_nodes=node1, node2",)),
        ("rename_node.yml", ("evio_rename=old=node2",)),
        ("restore.yml", (f"evio_backup_file={__file__}",)),
        ("rotate.yml", ("evio_rotate=certificates,wireguard",)),
        ("teardown.yml", ("evio_teardown_keep=claims, containerd,openvswitch-switch,libsite1",)),
        ("upgrade.yml", ("evio_upgrade_serial=50%",)),
        # The site's own, as it has said.
        ("bootstrap.yml", ("mtu=1380", "evio_extra_names=mtu")),
    ],
)
def test_order_that_is_right_goes_on_to_the_hosts(tmp_path: Path, playbook: str, arguments: tuple[str, ...]) -> None:
    given = [word for argument in arguments for word in ("-e", argument)]
    output = run(tmp_path, *given, playbook=playbook, evio_packages_node=["openvswitch-switch", "libsite1:amd64"])
    assert "UNREACHABLE" in output


def test_variable_of_the_inventory_may_have_the_name_of_one_of_ours_without_its_prefix(tmp_path: Path) -> None:
    assert "UNREACHABLE" in run(tmp_path, mtu=9000, cluster="berlin", packages=["vim"])
