# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run says what it waits for while a task takes long, and nothing otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from ansible_collections.evio.cni.plugins.plugin_utils.waits import RunningTask

REPOSITORY = Path(__file__).resolve().parents[6]
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Wait here
      ansible.builtin.command: sleep {{ seconds }}
      changed_when: false
    - name: Do it at once
      ansible.builtin.command: "true"
      changed_when: false
"""


def test_line_tells_the_time_and_the_hosts_that_are_not_done() -> None:
    task = RunningTask(started=100.0)
    for host in ("node1", "node2", "node3"):
        task.begin(host)
    task.end("node2")
    assert task.line(109.0) is None
    assert task.line(110.4) == "    10 s: 1 of 3 hosts are done, waiting for node1, node3"
    assert task.line(111.0) is None
    task.end("node1")
    task.end("node3")
    assert task.line(200.0) is None


def test_lines_become_seldom_and_stay_short() -> None:
    task = RunningTask(started=0.0)
    for number in range(300):
        task.begin(f"node{number}")
    said = [second for second in range(300) if task.line(float(second))]
    assert said == [10, 20, 30, 40, 50, 60, 90, 120, 150, 180, 210, 240, 270]
    line = task.line(301.0)
    assert line is not None
    assert line.endswith("waiting for node0, node1, node2, node3, node4 and 295 more")


def test_single_host_is_named_alone() -> None:
    task = RunningTask(started=0.0)
    assert task.line(100.0) is None
    task.begin("node1")
    assert task.line(100.0) == "    100 s: waiting for node1"


def run(directory: Path, playbook: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the playbook on hosts that are this machine, with the callback."""
    (directory / "play.yml").write_text(playbook)
    (directory / "hosts").write_text("node1 seconds=13\nnode2 seconds=0\n")
    (directory / "ansible.cfg").touch()
    python = f"ansible_python_interpreter={sys.executable}"
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-c", "local", "-i", "hosts", "-e", python, *arguments, "play.yml"),
        ],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / "collections"),
            "ANSIBLE_CALLBACKS_ENABLED": "evio.cni.waits",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_callback_works_beside_ansibles_own_output(tmp_path: Path) -> None:
    done = run(tmp_path, PLAYBOOK)
    assert done.returncode == 0, done.stdout + done.stderr
    during, _task, _after = done.stdout.partition("TASK [Do it at once]")
    said = [line for line in during.splitlines() if "waiting for" in line]
    assert said, done.stdout
    assert said[-1].endswith("s: 1 of 2 hosts are done, waiting for node1")
    assert "waits" not in done.stderr


NODES = """\
- hosts: node1
  gather_facts: false
  tasks:
    - name: Wait until the nodes are Ready
      evio.cni.kubernetes_nodes_info:
        addresses: {node7: 10.10.0.7}
        timeout: "{{ timeout }}"
        kubectl: "{{ playbook_dir }}/kubectl"
"""

KUBECTL = """\
#!/bin/sh
[ -e $0.asked ] || touch $0.asked
ready=False
[ $(( $(date +%s) - $(stat -c %Y $0.asked) )) -lt 18 ] || ready=True
echo '{"items": [{"metadata": {"name": "node7"}, "status": {
  "conditions": [{"type": "Ready", "status": "'$ready'", "message": "cni not initialized"}],
  "addresses": [{"type": "InternalIP", "address": "10.10.0.7"}]}}]}'
"""


def test_nodes_that_are_not_ready_are_named_while_they_are_waited_for(tmp_path: Path) -> None:
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    done = run(tmp_path, NODES, "-e", "timeout=90")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(?m)^    \d+ s of 90 s: node7 is not Ready: cni not initialized$", done.stdout)
    (tmp_path / "kubectl.asked").unlink()
    done = run(tmp_path, NODES, "-e", "timeout=1")
    assert done.returncode != 0
    assert "node7 is not Ready: cni not initialized (1 s)" in done.stdout
