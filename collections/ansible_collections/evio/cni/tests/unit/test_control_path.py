# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""ssh's control sockets belong to one host of one inventory, in delegated tasks too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[6]
PLAYBOOK = """\
- hosts: node2
  gather_facts: false
  tasks:
    - ansible.builtin.set_fact:
        paths: "{{ [ansible_control_path, ansible_delegated_vars['node1']['ansible_control_path']] }}"
      delegate_to: node1
    - ansible.builtin.copy:
        content: "{{ paths | to_json }}"
        dest: "{{ playbook_dir }}/paths.json"
        mode: "0600"
      delegate_to: localhost
"""


def control_paths(site: Path) -> tuple[str, str]:
    """The socket of node2, and of node1 as a task sees it that node2 delegates there."""
    site.mkdir(parents=True)
    hosts = {name: {"ansible_host": "192.0.2.1"} for name in ("node1", "node2")}
    (site / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (site / "playbook.yml").write_text(PLAYBOOK)
    subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", site / "hosts.json", site / "playbook.yml"],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    own, delegated = json.loads((site / "paths.json").read_text())
    return own, delegated


def test_hosts_with_one_address_have_different_sockets_in_delegated_tasks_too(tmp_path: Path) -> None:
    own, delegated = control_paths(tmp_path / "one")
    assert {path[:14] for path in (own, delegated)} == {"%(directory)s/"}
    assert {path[-4:] for path in (own, delegated)} == {"-%%C"}
    assert own != delegated


def test_hosts_of_one_name_in_two_inventories_have_different_sockets(tmp_path: Path) -> None:
    assert control_paths(tmp_path / "one")[0] != control_paths(tmp_path / "two")[0]


def test_socket_leaves_room_for_a_long_directory(tmp_path: Path) -> None:
    name = control_paths(tmp_path / "one")[0].removeprefix("%(directory)s").replace("%%C", "0" * 40)
    # 108 bytes in all (unix(7)), of which ssh appends 17 while it connects.
    assert 108 - 1 - len(name) - 17 >= 40


LOADED_TWICE = """\
from ansible.plugins.loader import init_plugin_loader, vars_loader
init_plugin_loader()
list(vars_loader.all(class_only=True))
first, second = (vars_loader.get("evio.cni.control_path") for _ in range(2))
assert first is not None
assert first is second
"""


def test_ansible_keeps_the_plugin_instead_of_loading_it_for_each_host_and_task() -> None:
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections")}
    done = subprocess.run(
        [sys.executable, "-c", LOADED_TWICE], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
