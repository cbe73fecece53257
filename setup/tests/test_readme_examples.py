"""The examples in the READMEs of the collection and of its roles, as ansible-playbook understands and runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from readme_examples import COLLECTION, PLAYBOOKS, ROLES, write_site


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write_site(tmp_path)
    return tmp_path


def ansible_playbook(site: Path, *arguments: str) -> str:
    """Return the output of a run that must succeed."""
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), *arguments],
        cwd=site,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTION.parents[2]),
            "ANSIBLE_HOME": str(site / ".ansible"),
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_and_playbook_is_understood(site: Path) -> None:
    assert "evio.cni.bootstrap" in PLAYBOOKS
    output = ansible_playbook(site, "--syntax-check", *PLAYBOOKS, *(f"{role}.yml" for role in ROLES))
    assert output.count("playbook: ") == len(PLAYBOOKS) + len(ROLES)


@pytest.mark.parametrize("role", ROLES)
def test_example_of_a_role_calls_it(site: Path, role: str) -> None:
    assert f"evio.cni.{role}\n" in (site / f"{role}.yml").read_text()
    assert all(play["name"] and play["hosts"] for play in yaml.safe_load((site / f"{role}.yml").read_text()))


@pytest.mark.parametrize(("role", "predicted"), [("cluster", "changed=0"), ("programs", "changed=1")])
def test_examples_that_need_no_cluster_run_in_check_mode_with_the_inventory(
    site: Path, role: str, predicted: str
) -> None:
    variables = f"ansible_connection=local evio_cni_bin_dir={site}/bin"
    output = ansible_playbook(site, "--check", "--limit", "cloud1", "--extra-vars", variables, f"{role}.yml")
    assert re.search(rf"^cloud1 .* {predicted} .*failed=0", output, re.MULTILINE)
    assert not (site / "bin").exists()


def test_example_inventory_of_the_repository_has_the_same_configuration(site: Path) -> None:
    example = COLLECTION.parents[3] / "inventories/example/ansible.cfg"
    assert example.read_text() == (site / "ansible.cfg").read_text()
