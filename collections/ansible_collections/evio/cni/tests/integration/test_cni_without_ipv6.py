# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""On a kernel that was booted with ipv6.disable=1: it refuses every message that speaks of IPv6.

Such a kernel is had by user-mode Linux: it runs as a process, on this host's files and with the kernel's Open vSwitch.
It has one processor, on which vswitchd misses packets of a new port, with IPv6 too: nothing is pinged here.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.kernel import rtnetlink

from .cni_runtime import CNI_PLUGINS, PLUGIN
from .ovs_daemons import SCHEMA

pytestmark = pytest.mark.root

SCRIPT = f"""\
#!/bin/bash
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys
for tmpfs in /run /mnt; do mount -t tmpfs none $tmpfs; done
mkdir -p /run/netns /mnt/modules/lib /mnt/net.d
ln -s /usr/lib/uml/modules /mnt/modules/lib/modules
for module in openvswitch veth nf_tables; do modprobe -d /mnt/modules $module; done
ip link set lo up
export OVS_RUNDIR=/mnt OVS_DBDIR=/mnt OVS_LOGDIR=/mnt OVS_SYSCONFDIR=/mnt TMPDIR=/mnt
ovsdb-tool create /mnt/conf.db {SCHEMA}
ovsdb-server /mnt/conf.db --remote=punix:/mnt/db.sock --unixctl=/mnt/ovsdb.ctl --pidfile --detach
ovs-vsctl --db=unix:/mnt/db.sock --no-wait init
ovs-vswitchd unix:/mnt/db.sock --unixctl=/mnt/vswitchd.ctl --pidfile --detach
ip netns add pod
call() {{
    echo "$2" > /mnt/stdin
    CNI_COMMAND=$1 CNI_CONTAINERID=abc CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 CNI_PATH={CNI_PLUGINS} \\
        {PLUGIN} < /mnt/stdin > /mnt/$1
    echo "$1 $?" $(cat /mnt/$1)
}}
conf='@CONF@'
echo '@CONFLIST@' > /mnt/net.d/10-evio.conflist
exec > /mnt/out 2>&1
echo "ipv6 $(ls -d /proc/sys/net/ipv6)"
call STATUS "$conf"
call ADD "$conf"
with_result="${{conf%?}},\\"prevResult\\":$(cat /mnt/ADD)}}"
call CHECK "$with_result"
ovs-vsctl --db=unix:/mnt/db.sock del-br br-evio
{PLUGIN} repair --conf-dir /mnt/net.d; echo "repair $?"
call CHECK "$with_result"
call DEL "$conf"
cp /mnt/out @OUT@
echo o > /proc/sysrq-trigger
sleep 60
"""
"""The guest's init. It sees this host's files, and writes only below its own /run and /mnt, and its results."""

CONF = {
    "cniVersion": "1.1.0",
    "name": "evio",
    "type": "evio",
    "bridge": "br-evio",
    "mtu": 1420,
    "epoch": 7,
    "isGateway": True,
    "isDefaultGateway": True,
    "gateway": "10.244.3.1/24",
    "ovsdb": "unix:/mnt/db.sock",
    "stateDir": "/mnt/state",
    "ipam": {"type": "host-local", "dataDir": "/mnt/ipam", "ranges": [[{"subnet": "10.244.3.0/24"}]]},
}


def test_add_check_repair_and_del_work_on_a_kernel_without_ipv6() -> None:
    conflist = {"cniVersion": "1.1.0", "name": "evio", "plugins": [CONF]}
    script = SCRIPT.replace("@CONF@", json.dumps(CONF)).replace("@CONFLIST@", json.dumps(conflist))
    # Not below /run or /mnt, where the guest has file systems of its own.
    with tempfile.TemporaryDirectory(prefix="evt-uml-", dir="/var/tmp") as directory:
        init, out = Path(directory, "init"), Path(directory, "out")
        init.write_text(script.replace("@OUT@", str(out)))
        init.chmod(0o755)
        kernel = ["linux.uml", "mem=700M", "rootfstype=hostfs", "rootflags=/", "rw", f"init={init}", "ipv6.disable=1"]
        subprocess.run(
            [*kernel, "con=null", "con0=fd:0,fd:1", "quiet", f"uml_dir={directory}/"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            # Its memory is a file there.
            env={**os.environ, "TMPDIR": "/dev/shm"},
            timeout=120,
            check=False,
        )
        lines = out.read_text().splitlines()
    said = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert "cannot access" in lines[0]
    assert [said[verb][0] for verb in ("STATUS", "ADD", "CHECK", "repair", "DEL")] == ["0"] * 5, lines


def test_veth_message_speaks_of_ipv6_only_to_a_kernel_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(rtnetlink.Netlink, "change", lambda _self, _what, requests: sent.append(requests[1][2]))
    mac = bytes(6)
    with rtnetlink.Netlink() as netlink:
        for settings in ("/proc", str(tmp_path / "absent")):
            monkeypatch.setattr(rtnetlink, "_IPV6_SETTINGS", settings)
            netlink.create_veth("a", mac, "b", mac, 0, 1420)
    with_ipv6, without = sent
    assert len(without) < len(with_ipv6)
