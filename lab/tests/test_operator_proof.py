"""The commands of docs/quick-start.md are those that lab/lab prove-operator runs, and those of the README."""

from __future__ import annotations

import re

import operator_proof
import pytest
from commands import LabError
from state import REPOSITORY

PAGE = (REPOSITORY / "docs/quick-start.md").read_text()


def test_page_adds_the_lab_s_node_and_takes_it_out() -> None:
    commands = operator_proof.commands(PAGE, "node3")
    assert commands[-2] == "~/evio/bin/ansible-playbook evio.cni.bootstrap --limit node3\n"
    assert commands[-1].endswith(" evio.cni.remove_node -e evio_leaving_nodes=node3\n")


def test_page_with_further_commands_is_refused() -> None:
    with pytest.raises(LabError, match="8 blocks of commands, and the proof knows 7"):
        operator_proof.commands(PAGE + "\n```sh\nls\n```\n", "node3")


def test_readme_has_the_commands_of_the_page() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    written = re.findall(r"(?m)^    (ansible-playbook evio\.cni\.[^#\n]*?) *(?:#.*)?$", readme)
    page = re.findall(r"(?m)^ansible-playbook .*$", PAGE.replace("~/evio/bin/", "").replace("truck2", "NODE"))
    # What comes later in a cluster's life follows in README.
    assert written[: len(page)] == page


@pytest.mark.parametrize(
    ("recap", "is_good"),
    [
        ("node1 : ok=9 changed=0 unreachable=0 failed=0 skipped=1", True),
        ("node1 : ok=9 changed=1 unreachable=0 failed=0 skipped=1", False),
        ("node1 : ok=9 changed=0 unreachable=0 failed=1 skipped=1", False),
        ("node1 : ok=9 changed=0 unreachable=1 failed=0 skipped=1", False),
        ("", False),
    ],
)
def test_recap_shows_a_change_a_failure_and_no_host(recap: str, is_good: bool) -> None:
    output = f"PLAY RECAP ****\nnode9 : ok=1 changed=1 unreachable=0 failed=1\nPLAY RECAP ****\n{recap}\n"
    try:
        operator_proof._check_recap(output, hosts=1, is_unchanged=True)
    except LabError:
        assert not is_good
    else:
        assert is_good
