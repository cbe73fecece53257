# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hosts that are not the machines of the inventory are refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.inventory.identities import (
    RenameError,
    SeenIdentity,
    WrongHostError,
    former_names,
    refuse_wrong_hosts,
)
from ansible_collections.evio.cni.plugins.module_utils.node.identity import (
    IdentityError,
    read_identity,
    read_site_certificates,
    render_identity,
)

ONE = SeenIdentity("edge1", "1" * 32, "node1", "kubernetes")
TWO = SeenIdentity("edge2", "2" * 32, "node2", "kubernetes")


def refusal(seen: dict[str, SeenIdentity], renamed: dict[str, str] | None = None) -> str:
    with pytest.raises(WrongHostError) as refused:
        refuse_wrong_hosts("kubernetes", seen, renamed or {})
    return str(refused.value)


def test_machines_of_the_inventory_and_new_machines_pass() -> None:
    refuse_wrong_hosts("kubernetes", {"node1": ONE, "node2": replace(TWO, node="", cluster="")}, {})


def test_machine_that_was_set_up_as_another_node_is_refused_by_both_names() -> None:
    words = refusal({"node1": TWO})
    assert words.startswith("node1: the machine that answers (hostname edge2) was set up as node node2")


def test_renamed_node_passes_under_its_new_name_only() -> None:
    refuse_wrong_hosts("kubernetes", {"edge": ONE}, {"edge": "node1"})
    assert "was set up as node node1" in refusal({"edge": ONE}, {"other": "node1"})


def test_names_of_a_rename_that_was_interrupted_pass_again() -> None:
    for seen in (ONE, replace(ONE, node="edge")):
        assert former_names({"node1": "edge"}, ["edge", "node2"], {"edge": seen, "node2": TWO}) == {"edge": "node1"}
        refuse_wrong_hosts("kubernetes", {"edge": seen, "node2": TWO}, {"edge": "node1"})


@pytest.mark.parametrize(
    ("renames", "message"),
    [
        ({"node1": "node2"}, "node1 is still in the inventory; put node2 there in its place"),
        ({"node2": "node2"}, "node2 is still in the inventory"),
        ({"old": "other"}, "other is not in the group evio_nodes; put it there in place of old"),
        ({"old": "lost"}, "lost does not answer, so nobody can tell whether it is old"),
        ({"old": "new"}, "new: the machine that answers (hostname edge3) was never set up, so it is not old"),
        ({"old": "node1", "older": "node1"}, "node1: 2 nodes are to get this name"),
        ({"old": ""}, "'old' and '' must both be names of nodes; give it as former=new"),
        ({"a b": "node1"}, "'a b' and 'node1' must both be names"),
    ],
)
def test_rename_that_inventory_or_machine_contradicts_is_refused(renames: dict[str, str], message: str) -> None:
    seen = {"node1": ONE, "node2": TWO, "new": SeenIdentity("edge3", "3" * 32, "", "")}
    with pytest.raises(RenameError) as refused:
        former_names(renames, ["node1", "node2", "new", "lost"], seen)
    assert message in str(refused.value)


def test_machine_of_another_cluster_is_refused() -> None:
    assert "is node node1 of cluster lab, not of kubernetes" in refusal({"node1": replace(ONE, cluster="lab")})


def test_two_names_of_one_machine_are_told_from_a_clone() -> None:
    same = {"node1": replace(ONE, node=""), "node2": replace(ONE, node="")}
    assert "node1 and node2 have one machine-id" in refusal(same)
    assert "Ansible reaches the same machine" in refusal(same)
    clone = {"node1": ONE, "node2": replace(TWO, machine_id=ONE.machine_id, node="")}
    assert "one is a clone of the other; on the clone, run: rm /etc/machine-id" in refusal(clone)


@pytest.mark.parametrize("machine_id", ["", "uninitialized", "0" * 32, "1" * 31, "G" * 32, "1" * 33])
def test_machine_id_that_identifies_no_machine_is_refused(machine_id: str) -> None:
    assert "identifies no machine" in refusal({"node1": replace(ONE, machine_id=machine_id)})


def test_all_wrong_hosts_are_named_at_once() -> None:
    words = refusal({"node1": TWO, "node2": ONE})
    assert "node1: " in words
    assert "node2: " in words


def files(directory: Path) -> dict[str, str]:
    return {
        "machine_id": str(directory / "machine-id"),
        "identity_file": str(directory / "node.json"),
        "overlay_config": str(directory / "overlay.json"),
    }


def test_identity_of_a_machine_that_was_never_set_up(tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("1" * 32 + "\n")
    found = read_identity(**files(tmp_path))
    assert (found.machine_id, found.node, found.cluster) == ("1" * 32, "", "")


def test_node_of_an_earlier_version_is_known_by_its_overlay_file(tmp_path: Path) -> None:
    (tmp_path / "overlay.json").write_text('{"node": "node2"}')
    assert read_identity(**files(tmp_path)).node == "node2"


def test_identity_file_names_node_and_cluster(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text(render_identity("node3", "site"))
    found = read_identity(**files(tmp_path))
    assert (found.node, found.cluster) == ("node3", "site")


def test_identity_file_notes_the_certificates_of_the_site(tmp_path: Path) -> None:
    file = tmp_path / "node.json"
    assert read_site_certificates(str(file)) == []
    file.write_text(render_identity("node3", "site", ["/srv/pki", "/srv/etcd.pem"]))
    assert read_site_certificates(str(file)) == ["/srv/pki", "/srv/etcd.pem"]
    assert "certificates" not in render_identity("node3", "site", [])
    for damage in ('{"certificates": "/srv/pki"}', '{"certificates": [3]}', "["):
        file.write_text(damage)
        with pytest.raises(IdentityError, match=r"node\.json"):
            read_site_certificates(str(file))


@pytest.mark.parametrize("text", ["{", "[]", '{"node": 3}', "[" * 100_000])
def test_damaged_identity_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(IdentityError, match=r"node\.json"):
        read_identity(**files(tmp_path))
