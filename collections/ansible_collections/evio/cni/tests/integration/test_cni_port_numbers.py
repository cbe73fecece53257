# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The OpenFlow numbers that ADD chooses for ports: no two ports get the same, and flows are there before the port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni.netconf import NetConf
from ansible_collections.evio.cni.plugins.module_utils.ovs import flows
from ansible_collections.evio.cni.plugins.module_utils.ovs.external_ids import OWNER, OWNER_ID
from ansible_collections.evio.cni.plugins.module_utils.ovs.jsonrpc import OvsdbClient, OvsdbError
from ansible_collections.evio.cni.plugins.module_utils.ovs.port_flows import PortFlows
from ansible_collections.evio.cni.plugins.module_utils.ovs.ports import NewPort, Segment, random_ofport, unplug

from .cni_runtime import NewPod, Node, PluginFailedError, library
from .ovs_daemons import in_namespace

pytestmark = pytest.mark.root

NUMBER = 0x8123
BRIDGE_MAC = "0a:58:0a:f4:03:01"


@pytest.fixture
def client(node: Node, new_pod: NewPod) -> Iterator[OvsdbClient]:
    """A connection to the database of a node whose bridge exists."""
    node.delete(node.add(new_pod()))
    with OvsdbClient(node.switch.ovsdb) as connection:
        yield connection


def new_port(client: OvsdbClient, name: str) -> NewPort:
    return NewPort(client, "br-evio", name, {OWNER_ID: OWNER}, Segment())


def make_device(node: Node, name: str) -> None:
    in_namespace(node.switch.netns, "ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")


def chooses(node: Node, *numbers: int) -> None:
    """Let the node's plugin choose these numbers, one after the other, for the ports that it adds."""
    code = (
        f"import sys; sys.path.insert(0, {library()!r}); import evio_cni.ovs.ports as ports; "
        f"ports.random_ofport = iter({numbers!r}).__next__; import evio_program.main as program; program.main()"
    )
    node.program = ["/usr/bin/python3", "-ISE", "-c", code]


def numbers_of(node: Node) -> dict[str, int]:
    """The OpenFlow numbers of pods' ports, by name."""
    listing = node.switch.vsctl("--format=json", "--columns=name,ofport", "list", "Interface")
    return {name: number for name, number in json.loads(listing)["data"] if name.startswith("evpod")}


def host_end(node: Node) -> str:
    [name] = numbers_of(node)
    return name


def test_vswitchd_gives_no_port_such_a_number_by_itself(node: Node, new_pod: NewPod) -> None:
    pods = [node.add(new_pod()) for _number in range(2)]
    node.add(new_pod(), portSecurity=False)
    numbers = sorted(numbers_of(node).values())
    assert numbers[0] < 0x8000 <= numbers[1] < numbers[2] < 0xFF00
    assert pods[0].pings(pods[1].address)
    assert all(0x8000 <= random_ofport() < 0xFF00 for _number in range(1000))


def test_number_of_another_port_is_refused_and_changes_nothing(node: Node, client: OvsdbClient) -> None:
    make_device(node, "first")
    make_device(node, "second")
    with new_port(client, "first") as first, new_port(client, "second") as second:
        first.begin(NUMBER)
        # At once: vswitchd has not given the first port its number yet.
        second.begin(NUMBER)
        assert not first.is_taken()
        assert second.is_taken()
        assert "second" not in node.ports()
        second.begin(NUMBER + 1)
        assert not second.is_taken()
        assert (first.wait_ofport(), second.wait_ofport()) == (NUMBER, NUMBER + 1)


def test_add_chooses_again_where_another_port_has_the_number(node: Node, new_pod: NewPod) -> None:
    chooses(node, NUMBER)
    pod = node.add(new_pod())
    chooses(node, NUMBER, NUMBER, NUMBER + 1)
    other = node.add(new_pod())
    assert sorted(numbers_of(node).values()) == [NUMBER, NUMBER + 1]
    assert pod.pings(other.address)
    assert not [flow for flow in node.flows() if "priority=65535" in flow]


def test_port_whose_device_comes_later_is_opened(node: Node, client: OvsdbClient) -> None:
    with new_port(client, "late") as port:
        port.begin(NUMBER)
        assert port.has_bridge()
        node.switch.vsctl("--timeout=5", "wait-until", "Interface", "late", "ofport=-1")
        make_device(node, "late")
        assert port.wait_ofport() == NUMBER


def test_port_without_a_device_is_named_and_removed(node: Node, client: OvsdbClient) -> None:
    with new_port(client, "missing") as port:
        port.begin(NUMBER)
        with pytest.raises(OvsdbError, match="cannot use the port missing: could not open network device"):
            port.wait_ofport()
    assert node.ports() == []


def test_port_that_was_never_opened_is_noted_for_its_flows(node: Node, client: OvsdbClient) -> None:
    with node.switch.paused_vswitchd():
        port = new_port(client, "unopened")
        port.begin(NUMBER)
        assert port.has_bridge()
        unplug(client, "unopened", port_security=True)
    assert f"evio-closed-{NUMBER}=unopened" in node.switch.vsctl("get", "Bridge", "br-evio", "external_ids")


def test_flow_that_closes_a_port_stays_while_its_add_may_be_at_work(
    node: Node, client: OvsdbClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = NetConf(node.conf)
    with PortFlows(conf, "evpod0123456789") as port:
        port.begin(BRIDGE_MAC, NUMBER)
        port.wait_closed()
    [closing] = [flow for flow in node.flows() if f"in_port={NUMBER}" in flow]
    assert closing.startswith("cookie=0xe71")
    assert closing.endswith("actions=drop")
    flows.delete_stale_flows(conf)
    assert closing in node.flows()
    monkeypatch.setattr(flows, "LONGEST_CALL_SECONDS", -1.0)
    flows.delete_stale_flows(conf)
    assert closing not in node.flows()


def test_port_that_another_add_has_closed_stays_closed_when_that_add_takes_another_number(
    node: Node, client: OvsdbClient
) -> None:
    conf = NetConf(node.conf)
    with PortFlows(conf, "evpod0123456789") as port, PortFlows(conf, "evpodabcdefabcd") as other:
        port.begin(BRIDGE_MAC, NUMBER)
        port.wait_closed()
        other.begin(BRIDGE_MAC, NUMBER)
        other.abandon()
        assert [flow for flow in node.flows() if f"in_port={NUMBER} actions=drop" in flow]
        port.install(NUMBER, "02:00:00:00:00:01", ["10.244.3.9"], {})
    assert not [flow for flow in node.flows() if "priority=65535" in flow]


def test_port_is_open_although_a_killed_add_has_closed_its_number(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    with PortFlows(NetConf(node.conf), "evpod0123456789") as port:
        port.begin(BRIDGE_MAC, NUMBER)
        port.wait_closed()
    chooses(node, NUMBER)
    assert node.add(new_pod()).pings(pod.address)


def test_repair_heals_a_port_of_an_earlier_version(node: Node, new_pod: NewPod) -> None:
    """Such a port has a number that vswitchd has chosen, and none that it has requested."""
    other = node.add(new_pod())
    node.write_conflist()
    pod = node.add(new_pod())
    name = next(name for name, number in numbers_of(node).items() if name in pod.result["interfaces"][1]["name"])
    node.switch.vsctl("set", "Interface", name, "ofport_request=7")
    node.switch.vsctl("clear", "Interface", name, "ofport_request")
    assert numbers_of(node)[name] == 7
    with pytest.raises(PluginFailedError, match=r"port-security flows of the port .* are missing"):
        node.call("CHECK", pod, prevResult=pod.result)
    repair = [*node.program, "repair", "--json", "--conf-dir", str(node.directory / "net.d")]
    [done] = json.loads(in_namespace(node.switch.netns, *repair).stdout)
    assert done["failures"] == []
    assert node.dead_flows() == []
    assert [flow for flow in node.flows() if "in_port=7," in flow]
    assert pod.pings(other.address)
    node.call("CHECK", pod, prevResult=pod.result)
    # DEL and the next ADD leave nothing of it.
    node.delete(pod)
    third = node.add(new_pod())
    assert third.pings(other.address)
    assert node.dead_flows() == []


def test_ports_keep_their_numbers_when_vswitchd_is_started_again(node: Node, new_pod: NewPod) -> None:
    node.add(new_pod())
    before = numbers_of(node)
    node.switch.kill_vswitchd()
    node.switch.start_vswitchd()
    node.switch.vsctl("set", "Open_vSwitch", ".", "external_ids:awaited=yes")
    assert numbers_of(node) == before


def test_many_adds_at_once_get_numbers_of_their_own(node: Node, new_pod: NewPod) -> None:
    pods = [new_pod() for _number in range(12)]
    with ThreadPoolExecutor(len(pods)) as pool:
        list(pool.map(node.add, pods))
    assert len(set(numbers_of(node).values())) == len(pods)
    assert all(pod.pings("10.244.3.1") for pod in pods)


def test_hosts_ends_have_no_ipv6(node: Node, new_pod: NewPod) -> None:
    """Each would have a route, by which vswitchd asks for its device whenever a device changes."""
    node.add(new_pod())
    listing = ["ip", "-6", "-o", "route", "show", "table", "all", "dev", host_end(node)]
    assert in_namespace(node.switch.netns, *listing).stdout == ""
