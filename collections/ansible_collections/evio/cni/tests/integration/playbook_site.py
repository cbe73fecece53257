# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A site for tests of playbooks, and ansible-playbook as an operator runs it on this site.

The hosts are one machine under two names; the third cannot be reached: nothing listens on port 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .etcd_server import EtcdServer

REPOSITORY = Path(__file__).resolve().parents[6]
HOSTILE_SITE = "shop <i>1</i> {{ 7 * 7 }}"


def inventory(directory: Path, server: EtcdServer | None) -> dict[str, Any]:
    """Return the site, with files in ``directory``, and with the etcd of ``server`` if there is one."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    variables: dict[str, Any] = {
        "evio_cni_conf_dir": str(directory / "net.d"),
        "evio_cni_state_dir": str(directory / "state"),
        "evio_cri_socket": "",
        "evio_status_directory": str(directory / "out"),
    }
    if server is not None:
        access = server.access
        variables["evio_etcd_endpoints"] = list(access.endpoints)
        variables["evio_etcd_ca_cert"] = access.ca_cert
        variables["evio_etcd_client_cert"] = access.client_cert
        variables["evio_etcd_client_key"] = access.client_key
    hosts = {
        "node1": {**local, "evio_public_endpoint": "192.0.2.1", "evio_host_overlay_address": "10.10.0.1"},
        "node2": {
            **local,
            "evio_host_overlay_address": "10.10.0.2",
            "evio_site": {"__ansible_unsafe": HOSTILE_SITE},
        },
        "node3": {"ansible_host": "127.0.0.1", "ansible_port": 1, "evio_host_overlay_address": "10.10.0.3"},
    }
    groups = {"evio_control_plane": {"hosts": {"node1": {}}}, "evio_pod_nodes": {"hosts": {"node1": {}, "node2": {}}}}
    return {"evio_nodes": {"hosts": hosts, "vars": variables, "children": groups}}


def play(
    directory: Path, server: EtcdServer | None, playbook: str, *arguments: str, netns: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the repository. With ``netns``, the hosts have the interfaces of this network namespace."""
    (directory / "hosts.json").write_text(json.dumps(inventory(directory, server)))
    return subprocess.run(
        [
            *(["nsenter", f"--net=/run/netns/{netns}"] if netns is not None else []),
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(directory / "hosts.json"), str(REPOSITORY / "playbooks" / playbook), *arguments),
        ],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(directory / "cp"),
        },
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
