# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Services: pods ask an address that the node's kernel translates to a pod, as kube-proxy and portmap make it.

The translations are nft's and iptables' own, in the node's namespace. Each answer says which client the backend saw.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.ovs.cookies import BRIDGE_FLOWS, cookie_of
from ansible_collections.evio.cni.plugins.module_utils.ovs.flows import clear_steering
from ansible_collections.evio.cni.plugins.module_utils.ovs.openflow import OpenFlow, Selection
from ansible_collections.evio.cni.plugins.module_utils.ovs.port_security import flows_of

from .cni_runtime import CNI_PLUGINS, NewPod, Node, PluginFailedError, Pod
from .edgevpn_segment import join
from .ovs_daemons import in_namespace
from .test_cni_repair import repair

pytestmark = pytest.mark.root

SERVICE, SERVICE6 = "10.96.0.10", "fd00:10:96::10"
PORT = 80

_BACKEND = """\
import socket, threading
def tell(kind, receive):
    server = socket.socket(socket.AF_INET6, kind)
    server.bind(("::", 8080))
    threading.Thread(target=receive, args=(server,)).start()
def tcp(server):
    server.listen(64)
    print("ready", flush=True)
    while True:
        connection, client = server.accept()
        connection.sendall(client[0].removeprefix("::ffff:").encode())
        connection.close()
def udp(server):
    while True:
        question, client = server.recvfrom(65536)
        server.sendto(client[0].removeprefix("::ffff:").encode().ljust(len(question)), client)
tell(socket.SOCK_DGRAM, udp)
tell(socket.SOCK_STREAM, tcp)
"""

_CLIENT = """\
import socket, sys
kind, host, port, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
client = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
client.settimeout(2)
client.connect((host, port))
if kind == "udp":
    client.send(b"?" * size)
print(client.recv(65536).decode().strip())
"""


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    return {"gateway": ["10.244.3.1/24", "fd00:10:244:3::1/64"]}


@pytest.fixture
def node(node: Node) -> Node:
    """The node, with pods of both families."""
    node.conf["ipam"]["ranges"].append([{"subnet": "fd00:10:244:3::/64"}])
    return node


@contextlib.contextmanager
def backend(pod: Pod) -> Iterator[None]:
    """Answer in the pod, by TCP and UDP, with the client's address."""
    command = ["nsenter", f"--net={pod.path}", sys.executable, "-c", _BACKEND]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def seen_by(client: str, host: str = SERVICE, *, port: int = PORT, kind: str = "tcp", size: int = 1) -> str:
    """Ask from a namespace; return the address that the backend saw, or how the client failed."""
    done = in_namespace(client, sys.executable, "-c", _CLIENT, kind, host, str(port), str(size), check=False)
    return done.stdout.strip() or done.stderr.strip().rpartition("\n")[2]


def addresses(pod: Pod) -> list[str]:
    return [ip["address"].partition("/")[0] for ip in pod.result["ips"]]


def kube_proxy(node: Node, backends: dict[str, list[str]], mode: str) -> None:
    """Translate a Service to its backends as kube-proxy does, with its masquerade of a pod that is its own backend.

    ``backends`` has the pods' addresses by the Service's. Packets that conntrack calls invalid are dropped as there.
    """
    if mode == "nft":
        lines = [
            "table inet kube-proxy {",
            "chain services { type nat hook prerouting priority dstnat;",
            *(_nft_dnat(service, pods) for service, pods in backends.items()),
            "}",
            # For what the node itself asks.
            "chain output { type nat hook output priority -100;",
            *(_nft_dnat(service, pods) for service, pods in backends.items()),
            "}",
            "chain postrouting { type nat hook postrouting priority srcnat - 1; ct mark 0x4000 masquerade;",
            "}",
            "chain forward { type filter hook forward priority filter - 1; ct state invalid drop;",
            "}",
            "}",
        ]
        rules = "\n".join(lines).replace(";", "\n") + "\n"
        subprocess.run(
            ["nsenter", f"--net=/run/netns/{node.switch.netns}", "nft", "-f", "-"], input=rules, text=True, check=True
        )
        return
    for service, [pod, *_others] in backends.items():
        program = [mode.replace("iptables", "ip6tables") if ":" in service else mode]
        target = f"[{pod}]:8080" if ":" in pod else f"{pod}:8080"
        for rule in (
            f"-t nat -A PREROUTING -s {pod} -d {service} -p tcp --dport {PORT} -j CONNMARK --set-mark 0x4000",
            f"-t nat -A PREROUTING -d {service} -p tcp --dport {PORT} -j DNAT --to-destination {target}",
            f"-t nat -A PREROUTING -d {service} -p udp --dport {PORT} -j DNAT --to-destination {target}",
            "-t nat -A POSTROUTING -m connmark --mark 0x4000 -j MASQUERADE",
            "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
        ):
            in_namespace(node.switch.netns, *program, *rule.split())


def _nft_dnat(service: str, pods: list[str]) -> str:
    family = "ip6" if ":" in service else "ip"
    hairpin = [f"{family} saddr {pod} {family} daddr {service} ct mark set 0x4000;" for pod in pods[:1]]
    targets = ", ".join(f"{number} : {pod}" for number, pod in enumerate(pods))
    to = f"dnat {family} to numgen inc mod {len(pods)} map {{ {targets} }}:8080;"
    return " ".join([*hairpin, *(f"{family} daddr {service} {kind} dport {PORT} {to}" for kind in ("tcp", "udp"))])


@pytest.mark.parametrize("mode", ["nft", "iptables", "iptables-legacy"])
def test_pod_reaches_service_whose_backend_is_on_its_node(node: Node, new_pod: NewPod, mode: str) -> None:
    client, server = node.add(new_pod()), node.add(new_pod())
    [address, address6] = addresses(server)
    kube_proxy(node, {SERVICE: [address], SERVICE6: [address6]}, mode)
    with backend(server):
        # More than once: a redirect of the kernel would lead the second request astray.
        for _attempt in range(3):
            for kind in ("tcp", "udp"):
                assert seen_by(client.netns, kind=kind) == addresses(client)[0]
                assert seen_by(client.netns, SERVICE6, kind=kind) == addresses(client)[1]
        # A datagram that is sent, and answered, in fragments.
        assert seen_by(client.netns, kind="udp", size=4000) == addresses(client)[0]
        # Without a translation the client is seen too.
        for host, own in zip((address, address6), addresses(client), strict=True):
            assert seen_by(client.netns, host, port=8080) == own
        assert client.pings(address)
        assert client.pings(address6)


@pytest.mark.parametrize("mode", ["nft", "iptables"])
def test_pod_reaches_itself_by_its_service(node: Node, new_pod: NewPod, mode: str) -> None:
    pod = node.add(new_pod())
    kube_proxy(node, {SERVICE: addresses(pod)[:1], SERVICE6: addresses(pod)[1:]}, mode)
    with backend(pod):
        assert seen_by(pod.netns) == "10.244.3.1"
        assert seen_by(pod.netns, SERVICE6) == "fd00:10:244:3::1"


def test_pod_is_told_that_the_backend_of_a_service_is_gone(node: Node, new_pod: NewPod) -> None:
    client, server = node.add(new_pod()), node.add(new_pod())
    kube_proxy(node, {SERVICE: [addresses(server)[0]]}, "nft")
    for kind in ("tcp", "udp"):
        assert "refused" in seen_by(client.netns, kind=kind)


@pytest.mark.parametrize("changes", [{}, {"portSecurity": False}], ids=["port security", "no port security"])
def test_service_outlasts_a_restart_of_vswitchd(node: Node, new_pod: NewPod, changes: dict[str, Any]) -> None:
    node.conf |= changes
    node.write_conflist()
    client, server = node.add(new_pod()), node.add(new_pod())
    kube_proxy(node, {SERVICE: addresses(server)[:1]}, "nft")
    with backend(server):
        assert seen_by(client.netns) == client.address
        node.switch.kill_vswitchd()
        node.switch.start_vswitchd()
        with pytest.raises(PluginFailedError, match="flow"):
            node.call("CHECK", client, prevResult=client.result)
        assert repair(node)["bridge"] == ["steering", "flow"]
        assert seen_by(client.netns) == client.address
        assert node.call("CHECK", client, prevResult=client.result) == {}
        assert repair(node)["bridge"] == []


def test_repair_gives_bridge_and_pods_of_an_earlier_version_their_flows(node: Node, new_pod: NewPod) -> None:
    node.write_conflist()
    client, server = node.add(new_pod()), node.add(new_pod())
    kube_proxy(node, {SERVICE: addresses(server)[:1]}, "nft")
    with OpenFlow(node.switch.ovsdb, "br-evio") as bridge:
        for pod in (client, server):
            host, mac = pod.result["interfaces"][1]["name"], pod.result["interfaces"][2]["mac"]
            number = int(node.switch.vsctl("get", "Interface", host, "ofport"))
            cookie = cookie_of(host)
            bridge.change([Selection(cookie), BRIDGE_FLOWS], cookie, flows_of(number, mac, addresses(pod), None))
    with backend(server):
        assert seen_by(client.netns) != client.address
        done = repair(node)
        assert (done["bridge"], len(done["guarded"]), done["failures"]) == (["steering"], 2, [])
        assert seen_by(client.netns) == client.address
        assert repair(node)["guarded"] == []


def test_new_pod_brings_the_flows_to_the_bridge_of_an_earlier_version(node: Node, new_pod: NewPod) -> None:
    server = node.add(new_pod())
    kube_proxy(node, {SERVICE: addresses(server)[:1]}, "nft")
    clear_steering(node.switch.ovsdb, "br-evio")
    client = node.add(new_pod())
    with backend(server):
        assert seen_by(client.netns) == client.address


def test_pod_cannot_answer_for_another_by_the_kernel(node: Node, new_pod: NewPod) -> None:
    """Port security holds for packets to the kernel too."""
    pod, other = node.add(new_pod()), node.add(new_pod())
    pod.run("ip", "address", "add", "10.244.3.99/24", "dev", "eth0")
    with backend(other):
        bound = [
            sys.executable,
            "-c",
            _CLIENT.replace("client.connect", "client.bind(('10.244.3.99', 0)); client.connect"),
        ]
        assert "timed out" in in_namespace(pod.netns, *bound, "tcp", other.address, "8080", "1", check=False).stderr


@pytest.mark.parametrize("program", ["iptables", "iptables-legacy"])
@pytest.mark.parametrize("rule", ["-P FORWARD DROP", "-A FORWARD -s 10.244.0.0/16 -j DROP"])
def test_firewall_of_the_node_lets_its_pods_reach_each_other(
    node: Node, new_pod: NewPod, program: str, rule: str
) -> None:
    in_namespace(node.switch.netns, program, *rule.split())
    client, server = node.add(new_pod()), node.add(new_pod())
    assert client.pings(server.address)
    # Nothing else is opened than what the rule closes by its policy.
    saved = in_namespace(node.switch.netns, program, "-S", "FORWARD").stdout
    assert saved.count("-i br-evio -o br-evio") == 1


def test_kernel_does_not_connect_isolated_pods(node: Node, new_pod: NewPod) -> None:
    pod, other = (node.add(new_pod(), portIsolation=True) for _number in range(2))
    assert pod.pings("10.244.3.1")
    assert not pod.pings(other.address)


@pytest.mark.parametrize("nodes", ["flat", "routed"], indirect=True)
@pytest.mark.parametrize("port_security", [True, False])
def test_service_has_backends_on_all_nodes_of_a_layer_2_segment(
    nodes: list[Node],
    new_pod: NewPod,
    port_security: bool,
) -> None:
    for node in nodes:
        node.conf |= {"portSecurity": port_security, "serviceCIDRs": ["10.96.0.0/12"]}
        # The uplink, with an address that no pod can answer.
        for command in (
            "link add eth0 type veth peer name uplink",
            "address add 192.168.1.2/24 dev eth0",
            "link set eth0 up",
            "route add default via 192.168.1.1",
        ):
            in_namespace(node.switch.netns, "ip", *command.split())
    (client, near), (far, _other) = ([node.add(new_pod()), node.add(new_pod())] for node in nodes)
    join(nodes)
    for node in nodes:
        kube_proxy(node, {SERVICE: [near.address, far.address]}, "nft")
    with backend(near), backend(far):
        for kind in ("tcp", "udp"):
            assert [seen_by(client.netns, kind=kind) for _attempt in range(4)] == [client.address] * 4
        for pod in (near, far):
            assert seen_by(client.netns, pod.address, port=8080) == client.address
        assert seen_by(nodes[0].switch.netns, far.address, port=8080) == "10.244.1.1"
        assert [seen_by(nodes[0].switch.netns) for _attempt in range(4)] == ["10.244.1.1"] * 4
    assert nodes[0].call("CHECK", client, prevResult=client.result) == {}


def test_host_port_leads_to_a_pod_of_the_same_node(node: Node, new_pod: NewPod) -> None:
    """As portmap translates it, which masquerades what pods of the node ask."""
    client, server = node.add(new_pod()), node.add(new_pod())
    result = {**server.result, "dns": {}}
    conf = {
        "cniVersion": "1.0.0",
        "name": "evio",
        "type": "portmap",
        "snat": True,
        "runtimeConfig": {"portMappings": [{"hostPort": 8081, "containerPort": 8080, "protocol": "tcp"}]},
        "prevResult": result,
    }
    environment = {
        "PATH": os.environ["PATH"],
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": server.container_id,
        "CNI_NETNS": server.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": CNI_PLUGINS,
    }
    subprocess.run(
        ["nsenter", f"--net=/run/netns/{node.switch.netns}", f"{CNI_PLUGINS}/portmap"],
        input=json.dumps(conf),
        env=environment,
        text=True,
        capture_output=True,
        check=True,
    )
    in_namespace(node.switch.netns, "ip", "address", "add", "10.10.0.3/32", "dev", "lo")
    with backend(server):
        for _attempt in range(2):
            assert seen_by(client.netns, "10.10.0.3", port=8081) == "10.244.3.1"
            assert seen_by(server.netns, "10.10.0.3", port=8081) == "10.244.3.1"
