# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The roles teardown and etcd (remove) by themselves: what they refuse, and what of the site's own stays.

Each run sees a copy of /etc and /var/lib of its own, in a mount namespace. systemctl is a double: every unit is there
and stopped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils import paths, pki

pytestmark = pytest.mark.root

COLLECTIONS = Path(__file__).resolve().parents[5]
OVERLAID = ("/etc", "/var/lib")
DROP_IN = "/etc/systemd/system/etcd.service.d/evio.conf"
DROP_IN_TEXT = """\
[Service]
Environment=ETCD_NAME=former
Environment=ETCD_DATA_DIR=/var/lib/etcd/former.etcd
Environment=ETCD_TRUSTED_CA_FILE=/etc/ssl/etcd/ca.crt
Environment=ETCD_PEER_TRUSTED_CA_FILE=/etc/ssl/etcd/ca.crt
"""
DATA = "/var/lib/etcd/former.etcd/member/snap"

SYSTEMCTL = """#!/bin/sh
case "$*" in
*show*) printf 'LoadState=loaded\\nActiveState=inactive\\nUnitFileState=disabled\\n' ;;
*is-enabled*) echo disabled; exit 1 ;;
*is-active*) echo inactive; exit 3 ;;
esac
"""

ROLE_ALONE = """
- hosts: node1
  gather_facts: false
  roles: [evio.cni.teardown]
"""
# A role that refused nothing would remove packages and programs of this machine.
CHECK = "--check"
ETCD = """
- hosts: node1
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: evio.cni.etcd, tasks_from: remove}
"""


class Host:
    """This machine with changes to /etc and /var/lib that only its runs see."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("layers", "bin"):
            (directory / name).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(directory / "layers")], check=True)
        for path in OVERLAID:
            for kind in ("upper", "work"):
                (self._layer(path) / kind).mkdir(parents=True)
        (directory / "bin/systemctl").write_text(SYSTEMCTL)
        (directory / "bin/systemctl").chmod(0o755)

    def close(self) -> None:
        subprocess.run(["umount", str(self.directory / "layers")], check=True)

    def at(self, path: str) -> Path:
        """Return where a file of the host is written, or was written by a run."""
        [base] = [base for base in OVERLAID if path.startswith(f"{base}/")]
        return self._layer(base) / "upper" / path.removeprefix(f"{base}/")

    def write(self, path: str, text: str = "") -> None:
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        self.at(path).write_text(text)

    def exists(self, path: str) -> bool:
        # A removed file of the lower layer is a character device in the upper one.
        return self.at(path).is_file()

    def play(self, playbook: str, *arguments: str, **variables: object) -> str:
        """Return the output of a run, which may fail."""
        hosts = {f"node{number}": {"evio_host_overlay_address": f"10.10.0.{number}"} for number in (1, 2)}
        inventory = {"evio_nodes": {"hosts": hosts}, "evio_control_plane": {"hosts": {"node1": {}}}}
        (self.directory / "hosts.json").write_text(json.dumps(inventory))
        (self.directory / "play.yml").write_text(playbook)
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        mounts = [
            f"mount -t overlay -o lowerdir={path},upperdir={self._layer(path)}/upper,workdir={self._layer(path)}/work "
            f"overlay {path}"
            for path in OVERLAID
        ]
        done = subprocess.run(
            [
                *("unshare", "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh"),
                *(str(Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.json", "play.yml", *arguments),
                *("-e", json.dumps({**local, "evio_etcd_managed": True, **variables})),
            ],
            env={
                **os.environ,
                "PATH": f"{self.directory}/bin:{os.environ['PATH']}",
                "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                "ANSIBLE_NOCOLOR": "1",
            },
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return " ".join((done.stdout + done.stderr).split())

    def _layer(self, path: str) -> Path:
        return self.directory / "layers" / path.strip("/").replace("/", "-")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.close()


def test_role_alone_refuses_a_host_that_still_has_its_network(host: Host) -> None:
    host.write(paths.NODE_IDENTITY, json.dumps({"node": "node1", "cluster": "kubernetes"}))
    output = host.play(ROLE_ALONE, CHECK)
    assert "node1 is still node node1 of cluster kubernetes, and this role removes what is left" in output, output
    assert "Run teardown.yml, which removes the network first" in output
    assert "changed=0" in output


def test_role_alone_refuses_a_member_even_by_force_while_pods_run(host: Host, tmp_path: Path) -> None:
    pods = [{"state": "attached", "container_id": "0123456789abcdef", "namespace": "shop", "name": "till"}]
    program = tmp_path / "bin/evio"
    program.write_text(f"#!/bin/sh\necho '{json.dumps({'networks': [{'mtu': 1420, 'pods': pods}]})}'\n")
    program.chmod(0o755)
    output = host.play(ROLE_ALONE, CHECK, evio_teardown_force=True, evio_cni_bin_dir=str(program.parent))
    assert "node1: pods run there" in output, output
    assert "changed=0" in output


def test_role_alone_refuses_a_word_that_keeps_nothing(host: Host) -> None:
    output = host.play(ROLE_ALONE, CHECK, evio_teardown_keep="etcd")
    assert "evio_teardown_keep: 'etcd' names nothing that could stay" in output, output
    assert "changed=0" in output


def test_removal_of_etcd_where_it_was_never_set_up_removes_nothing(host: Host) -> None:
    for path in ("/etc/ssl/etcd/ca.key", "/etc/kubernetes/pki/etcd/ca.key", DATA):
        host.write(path, "theirs")
    for directory in ("/etc/ssl", "/etc/kubernetes/pki/", "/etc/kubernetes/pki"):
        output = host.play(ETCD, evio_etcd_pki_dir=directory)
        assert "changed=0" in output, output
        assert "failed=0" in output, output
    assert all(host.exists(path) for path in ("/etc/ssl/etcd/ca.key", "/etc/kubernetes/pki/etcd/ca.key", DATA))


def test_removal_of_etcd_takes_what_its_drop_in_names_and_leaves_what_others_have(host: Host) -> None:
    pki.issue(str(host.at("/etc/ssl")), "node1", [])
    host.write(DROP_IN, DROP_IN_TEXT)
    for path in ("/etc/ssl/private/site.key", "/var/lib/etcd/other.etcd/wal", "/etc/elsewhere/etcd/ca.key", DATA):
        host.write(path, "theirs")
    output = host.play(ETCD, evio_etcd_pki_dir="/etc/elsewhere")
    assert "failed=0" in output, output
    removed = (DROP_IN, "/etc/ssl/etcd/ca.key", "/etc/ssl/etcd/server.key", "/etc/ssl/apiserver-etcd-client.key", DATA)
    assert [path for path in removed if host.exists(path)] == []
    kept = ("/etc/ssl/private/site.key", "/var/lib/etcd/other.etcd/wal", "/etc/elsewhere/etcd/ca.key")
    assert [path for path in kept if not host.exists(path)] == []
    assert "changed=0" in host.play(ETCD, evio_etcd_pki_dir="/etc/elsewhere")
