# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The role pod_bridge with a bridge that somebody else has made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .overlay_lab import COLLECTIONS
from .ovs_daemons import OpenVSwitch, in_namespace

pytestmark = pytest.mark.root

PLAYBOOK = """
- hosts: evio_nodes
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: evio.cni.pod_bridge
    - ansible.builtin.debug:
        msg: "pods get {{ __evio_overlay_mtu }} bytes"
    - ansible.builtin.import_role:
        name: evio.cni.pod_bridge
        tasks_from: firewalls
"""


def run_role(ovs: OpenVSwitch, directory: Path, **variables: object) -> str:
    """Run the role on a host with the network of ``ovs`` and its own sysctl files; return what the playbook prints."""
    settings = directory / "sysctl.d"
    settings.mkdir(exist_ok=True)
    python = directory / "python"
    own_settings = f"""unshare -m sh -c 'mount --bind {settings} /etc/sysctl.d && exec /usr/bin/python3 "$@"' python"""
    python.write_text(f'#!/bin/sh\nexec nsenter --net=/run/netns/{ovs.netns} {own_settings} "$@"\n')
    python.chmod(0o755)
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(python),
        "evio_overlay": "external",
        "evio_pod_bridge": "br-site",
        "evio_ovsdb": ovs.ovsdb,
        "__evio_node_bridge": "br-site",
        "__evio_overlay_mtu": 1420,
        "__evio_datapath_type": "netdev",
        "__evio_node_subnet": {"gateways": ["10.244.3.1/24"], "segment_gateways": [], "epoch": 7},
        **variables,
    }
    (directory / "hosts.json").write_text(json.dumps({"evio_nodes": {"hosts": {"node1": host}}}))
    (directory / "play.yml").write_text(PLAYBOOK)
    (directory / "ansible.cfg").touch()
    playbook = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [str(playbook), "-i", str(directory / "hosts.json"), str(directory / "play.yml")],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    return done.stdout


@pytest.mark.parametrize("mtu", [1500, 1400])
def test_pods_get_the_mtu_of_an_external_bridge(ovs: OpenVSwitch, tmp_path: Path, mtu: int) -> None:
    ovs.vsctl("add-br", "br-site", "--", "set", "Bridge", "br-site", "datapath_type=netdev")
    ovs.vsctl("set", "Interface", "br-site", f"mtu_request={mtu}")
    output = run_role(ovs, tmp_path)
    assert f"pods get {mtu} bytes" in output, output
    assert "changed=0" in run_role(ovs, tmp_path)
    assert ovs.vsctl("get", "Interface", "br-site", "mtu_request") == str(mtu)


def test_other_mtu_than_that_of_an_external_bridge_is_refused(ovs: OpenVSwitch, tmp_path: Path) -> None:
    ovs.vsctl("add-br", "br-site", "--", "set", "Bridge", "br-site", "datapath_type=netdev")
    output = run_role(ovs, tmp_path, evio_mtu=1420)
    assert "mtu is 1500, asked for is 1420" in output, output
    assert ovs.vsctl("get", "Interface", "br-site", "mtu") == "1500"


def test_firewall_that_drops_packets_of_pods_is_named_at_the_end(ovs: OpenVSwitch, tmp_path: Path) -> None:
    ovs.vsctl("add-br", "br-site", "--", "set", "Bridge", "br-site", "datapath_type=netdev")
    assert "skipping: [node1]" in run_role(ovs, tmp_path).partition("Name the firewalls")[2]
    in_namespace(ovs.netns, "nft", "add table inet site")
    in_namespace(ovs.netns, "nft", "add chain inet site ward { type filter hook forward priority 0; policy drop; }")
    output = run_role(ovs, tmp_path)
    last_task = output.partition("Name the firewalls")[2]
    assert '"node1": [' in last_task
    assert "inet site ward drops what pods send to the internet; remedy: nft insert rule inet site ward" in last_task
    assert "changed=0" in last_task
