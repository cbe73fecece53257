# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The errors that people are most likely to see: each is provoked, ends in what to do, and is found in
docs/troubleshooting.md by the words on the screen."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.allocator import plan_claims
from ansible_collections.evio.cni.plugins.module_utils.claims.model import Claim, PoolConfig, Request, Snapshot
from ansible_collections.evio.cni.plugins.module_utils.cni.conf_dir import refuse_competitors
from ansible_collections.evio.cni.plugins.module_utils.cni.cri import NetworkStatus, refuse_other_directories
from ansible_collections.evio.cni.plugins.module_utils.errors import EvioError
from ansible_collections.evio.cni.plugins.module_utils.inventory.cluster import Cluster, check_cluster
from ansible_collections.evio.cni.plugins.module_utils.inventory.cluster import Node as InventoryNode
from ansible_collections.evio.cni.plugins.module_utils.inventory.identities import SeenIdentity, refuse_wrong_hosts
from ansible_collections.evio.cni.plugins.module_utils.inventory.spelling import check_groups, check_variables
from ansible_collections.evio.cni.plugins.module_utils.subnets import parse_pools
from troubleshooting_page import entries, one_line, provoked_by

from .cni_runtime import PLUGIN, NewPod, Node, PluginFailedError
from .ovs_daemons import in_namespace

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Place:
    """Where an error is provoked."""

    node: Node
    new_pod: NewPod
    directory: Path

    def call(self, command: str, **changes: object) -> str:
        """Return the plugin's error."""
        with pytest.raises(PluginFailedError) as failed:
            self.node.call(command, *([self.new_pod()] if command == "ADD" else []), **changes)
        return str(failed.value)

    def evio(self, *arguments: str) -> str:
        """Return what an operator's command writes to standard error."""
        done = in_namespace(self.node.switch.netns, str(PLUGIN), *arguments, check=False)
        assert done.returncode == 1
        return done.stderr.strip()


def vswitchd_is_down(place: Place) -> str:
    place.node.switch.kill_vswitchd()
    return place.call("STATUS")


def addresses_are_exhausted(place: Place) -> str:
    one = {"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.2", "rangeEnd": "10.244.3.2"}
    place.node.conf["ipam"]["ranges"] = [[one]]
    place.node.add(place.new_pod())
    return place.call("STATUS")


def claim_is_lost(place: Place) -> str:
    (place.node.directory / "state").mkdir()
    (place.node.directory / "state/.fence").write_text("etcd has no claim of it\n")
    return place.call("ADD")


def bridge_is_somebody_elses(place: Place) -> str:
    settings = [f"datapath_type={place.node.conf['datapathType']}", "external_ids:owner=site"]
    place.node.switch.vsctl("add-br", "br-site", "--", "set", "Bridge", "br-site", *settings)
    return place.call("ADD", bridge="br-site")


def state_directory_is_read_only(place: Place) -> str:
    state = place.node.directory / "state"
    state.mkdir()
    mount = f"mount --bind {state} {state} && mount -o remount,bind,ro {state}"
    place.node.program = ["unshare", "-m", "--propagation", "private", "sh", "-c", f"{mount} && exec {PLUGIN}"]
    return place.call("STATUS")


def other_network_comes_first(place: Place) -> str:
    (place.directory / "05-other.conflist").write_text("{}")
    return refusal(refuse_competitors, str(place.directory))


def runtime_reads_another_directory(_place: Place) -> str:
    status = NetworkStatus(True, "", (), "/etc/other/net.d", ("/opt/cni/bin",))
    return refusal(refuse_other_directories, status, "/run/cri.sock", "/etc/cni/net.d", "/opt/cni/bin")


def etcd_does_not_answer(place: Place) -> str:
    (place.directory / "machine-id").write_text("1" * 32 + "\n")
    options = {
        "etcd": "http://127.0.0.1:1",
        "pod-cidr": "10.244.0.0/16",
        "node-bits": "8",
        "node": "node1",
        "timeout": "1",
        "machine-id": str(place.directory / "machine-id"),
        "out-dir": str(place.directory),
        "state-dir": str(place.directory / "state"),
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    program = PLUGIN.with_name("evio-config-gen")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    return done.stderr.strip()


def machine_was_replaced(_place: Place) -> str:
    pools = parse_pools("10.244.0.0/16", 8)
    snapshot = Snapshot(claims={"node1": Claim("node1", "1" * 32, ("10.244.0.0/24",), 1000.0, 7)})
    searches = {pool.pod_cidr: snapshot.search(pool) for pool in pools}
    return refusal(plan_claims, [Request("node1", "2" * 32)], PoolConfig(pools), snapshot, searches, now=1e4)


def refusal(call: Callable[..., object], *arguments: object, **options: object) -> str:
    with pytest.raises(EvioError) as refused:
        call(*arguments, **options)
    return str(refused.value)


CLUSTER = Cluster(
    name="kubernetes",
    overlay="wireguard",
    host_overlay_cidr="10.10.0.0/16",
    pod_cidr="10.244.0.0/16",
    node_bits="8",
    nodes=(InventoryNode("node1", "10.10.0.1", "198.51.100.11"), InventoryNode("node2", "10.10.0.2")),
    control_plane=("node1",),
    etcd_managed=True,
)
ONE = SeenIdentity("edge1", "1" * 32, "node1", "kubernetes")
TWO = SeenIdentity("edge2", "2" * 32, "node2", "kubernetes")

ERRORS: dict[str, tuple[Callable[[Place], str], str]] = {
    # The words on the screen; what provokes the error; the words of the remedy that come after them.
    # The plugin's, which kubelet shows at the pod or the node.
    "is ovsdb-server running?": (
        lambda place: place.call("ADD", ovsdb="unix:/nowhere/db.sock"),
        "start openvswitch-switch",
    ),
    "is ovs-vswitchd running?": (vswitchd_is_down, "systemctl restart ovs-vswitchd"),
    "no address of": (addresses_are_exhausted, "evio gc"),
    "this node's claim on its pod subnet is lost": (claim_is_lost, "evio_node_subnet_restore"),
    "so only gateways are added to it": (bridge_is_somebody_elses, "take the name of a bridge that does not exist yet"),
    "hairpinMode: True is not supported": (lambda place: place.call("ADD", hairpinMode=True), "leave it out"),
    "nothing can be written in": (state_directory_is_read_only, "mount it read-write"),
    "is not in CNI_PATH": (lambda place: place.call("ADD", CNI_PATH="/nowhere"), "containernetworking-plugins"),
    "cannot be opened": (lambda place: place.call("ADD", CNI_NETNS="/run/netns/evt-gone"), "recreate the pod"),
    # The node's commands.
    "no pod of this node has the address": (
        lambda place: place.evio("explain", "10.9.9.9", "--conf-dir", conf_dir(place)),
        "evio status",
    ),
    "this node is not set up for pods yet": (
        lambda place: place.evio("repair", "--conf-dir", str(place.directory)),
        "evio.cni.bootstrap",
    ),
    "the overlay's agent has not written": (
        lambda place: place.evio("overlay", "--state", "/nowhere", "status"),
        "systemctl status",
    ),
    "the container runtime at": (
        lambda place: place.evio("explain", "a/b", "--cri-socket", "/nowhere", "--conf-dir", conf_dir(place)),
        "systemctl status containerd",
    ),
    "is etcd running there?": (etcd_does_not_answer, "systemctl status etcd"),
    # The operator's.
    "sorts before 10-evio.conflist": (other_network_comes_first, "remove it or rename it"),
    "reads CNI configuration from": (runtime_reads_another_directory, "set evio_cni_conf_dir: /etc/other/net.d"),
    "nothing reads this variable": (
        lambda _place: refusal(check_variables, ["evio_pod_cidr"], {"node1": ["evio_pod_cdir"]}),
        "Rename a misspelt variable",
    ),
    "nothing reads it; is it evio_nodes?": (
        lambda _place: refusal(check_groups, {"evio_nodse": ["node1"]}),
        "Rename it",
    ),
    "but evio_etcd_managed runs an etcd of one member": (
        lambda _place: refusal(check_cluster, replace(CLUSTER, control_plane=("node1", "node2"))),
        "Leave only the host",
    ),
    "was set up as node": (
        lambda _place: refusal(refuse_wrong_hosts, "kubernetes", {"node1": TWO}, {}),
        "check ansible_host, ansible_port and jump hosts",
    ),
    "have one machine-id": (
        lambda _place: refusal(
            refuse_wrong_hosts, "kubernetes", {"node1": ONE, "node2": replace(TWO, machine_id="1" * 32, node="")}, {}
        ),
        "run: rm /etc/machine-id",
    ),
    "belongs to the machine": (machine_was_replaced, "set replaced: true"),
}


def conf_dir(place: Place) -> str:
    place.node.write_conflist()
    return str(place.node.directory / "net.d")


@pytest.mark.parametrize("words", ERRORS)
def test_error_has_the_words_of_the_page_and_then_what_to_do(
    node: Node, new_pod: NewPod, tmp_path: Path, words: str
) -> None:
    node.conf["cniVersion"] = "1.1.0"
    provoke, remedy = ERRORS[words]
    directory = tmp_path / "place"
    directory.mkdir()
    _before, found, after = one_line(provoke(Place(node, new_pod, directory))).partition(words)
    assert found
    assert remedy in after
    assert words in entries()


def test_table_of_the_page_names_the_errors_that_are_provoked_here() -> None:
    assert set(ERRORS) == provoked_by("tests")
