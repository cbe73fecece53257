# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Calls that runtimes should not make, configurations that cannot work, IPAM plugins that misbehave: nothing living is
harmed, every one is told what is wrong, and a pod can always be removed. The sections are those of SPEC.md 1.1.0."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .cni_runtime import CNI_PLUGINS, PLUGIN, NewPod, Node, PluginFailedError, Pod, library

pytestmark = pytest.mark.root

INTERPRETER = "/usr/bin/python3"
_SHORT_CALL = """\
import sys
sys.path.insert(0, sys.argv.pop())
from evio_cni import deadline
deadline.ADD_SECONDS = 3.0
from evio_program.main import main
main()
"""
"""The plugin with an ADD that may take 3 s instead of 100. Its last argument is the directory of the code."""


@pytest.fixture
def conf_changes() -> dict[str, Any]:
    return {"cniVersion": "1.1.0"}


def is_whole(node: Node, pod: Pod) -> bool:
    """Whether all that its ADD has made is there still."""
    if not pod.pings("10.244.3.1"):
        return False
    node.call("CHECK", pod, prevResult=pod.result)
    return True


def ipam_plugin(node: Node, script: str) -> str:
    """CNI_PATH with an IPAM plugin of this text, which the node's network uses from now on."""
    directory = node.directory / "ipam-plugins"
    directory.mkdir(exist_ok=True)
    plugin = directory / "scripted"
    plugin.write_text(f"#!/bin/sh\n{script}\n")
    plugin.chmod(0o755)
    node.conf["ipam"] = {"type": plugin.name}
    return f"{directory}:{CNI_PLUGINS}"


@pytest.mark.parametrize("path", ["/run/netns/evt-gone", None])
def test_refused_add_sends_nothing_to_the_ipam_plugin(node: Node, new_pod: NewPod, path: str | None) -> None:
    """It is started first, and does nothing before it has its configuration."""
    node.add(new_pod())
    before = node.leftovers()
    told = node.directory / "told"
    plugins = ipam_plugin(node, f"read -r configuration && : > {told}; exit 1")
    if path is None:
        (node.directory / "state/.fence").write_text("etcd has no claim of it\n")
    with pytest.raises(PluginFailedError):
        node.call("ADD", new_pod(), CNI_PATH=plugins, **({} if path is None else {"CNI_NETNS": path}))
    assert not is_running(plugins.partition(":")[0])
    assert not told.exists()
    assert node.leftovers() == before


def is_running(directory: str) -> bool:
    """Whether a process was started from there."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if directory.encode() in line.read_bytes():
                return True
    return False


# What is another's stays


def test_refused_add_of_another_network_leaves_the_first_attachment_whole(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    with pytest.raises(PluginFailedError):
        node.call("ADD", pod, name="other")
    assert is_whole(node, pod)


def test_delete_in_another_network_leaves_this_ones_attachment_whole(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    node.call("DEL", pod, name="other")
    assert is_whole(node, pod)


@pytest.mark.parametrize("journal", ["gone", "empty"])
def test_second_add_is_refused_though_the_journal_has_forgotten_the_first(
    node: Node, new_pod: NewPod, journal: str
) -> None:
    pod = node.add(new_pod())
    entry = node.directory / f"state/evio/{pod.container_id}:eth0"
    entry.unlink() if journal == "gone" else entry.write_text("")
    with pytest.raises(PluginFailedError):
        node.call("ADD", pod)
    assert is_whole(node, pod)
    assert node.reservations() == [pod.address]


def test_network_cannot_take_another_networks_gateway(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    ipam = {**node.conf["ipam"], "ranges": [[{"subnet": "10.245.7.0/24"}]]}
    with contextlib.suppress(PluginFailedError):
        node.call("ADD", new_pod(), name="other", gateway="10.245.7.1/24", ipam=ipam)
    assert pod.pings("10.244.3.1")


# ADD


@pytest.mark.parametrize("family", ["ipv4", "dual stack"])
def test_container_has_two_interfaces_in_one_network(node: Node, new_pod: NewPod, family: str) -> None:
    if family == "dual stack":
        node.conf["gateway"] = ["10.244.3.1/24", "fd00:10:244:3::1/64"]
        node.conf["ipam"]["ranges"].append([{"subnet": "fd00:10:244:3::/64"}])
    pod = node.add(new_pod())
    second = node.call("ADD", pod, CNI_IFNAME="net1")
    node.call("CHECK", pod, CNI_IFNAME="net1", prevResult=second)
    assert is_whole(node, pod)
    node.call("DEL", pod, CNI_IFNAME="net1")
    assert is_whole(node, pod)


def test_bridge_gets_the_gateway_of_ipam_where_the_configuration_names_none(node: Node, new_pod: NewPod) -> None:
    """As the reference bridge plugin has it: isGateway alone."""
    del node.conf["gateway"]
    assert is_whole(node, node.add(new_pod()))


def test_default_route_leads_to_the_gateway_that_the_bridge_has(node: Node, new_pod: NewPod) -> None:
    node.conf["gateway"] = "10.244.3.254/24"
    node.conf["ipam"]["ranges"] = [[{"subnet": "10.244.3.0/24"}]]
    pod = node.add(new_pod())
    assert pod.result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.244.3.254"}]
    assert pod.pings("10.244.3.254")


def test_pod_is_not_given_the_gateways_own_address(node: Node, new_pod: NewPod) -> None:
    node.conf["gateway"] = "10.244.3.254/24"
    only = {"subnet": "10.244.3.0/24", "rangeStart": "10.244.3.254", "rangeEnd": "10.244.3.254"}
    node.conf["ipam"]["ranges"] = [[only]]
    with pytest.raises(PluginFailedError, match=r"10\.244\.3\.254"):
        node.add(new_pod())
    assert node.leftovers() == {}


def test_pod_whose_namespace_was_without_ipv6_gets_its_address(node: Node, new_pod: NewPod) -> None:
    node.conf["gateway"] = ["10.244.3.1/24", "fd00:10:244:3::1/64"]
    node.conf["ipam"]["ranges"].append([{"subnet": "fd00:10:244:3::/64"}])
    pod = new_pod()
    for scope in ("all", "default"):
        pod.run("sysctl", "-qw", f"net.ipv6.conf.{scope}.disable_ipv6=1")
    assert node.add(pod).pings("fd00:10:244:3::1")


@pytest.mark.parametrize(
    "places",
    [
        ({"CNI_ARGS": "IgnoreUnknown=1;IP=10.244.3.50"}, {"args": {"cni": {"ips": ["10.244.3.52"]}}}),
        ({"args": {"cni": {"ips": ["10.244.3.51"]}}}, {"runtimeConfig": {"ips": ["10.244.3.52"]}}),
        ({"CNI_ARGS": "IgnoreUnknown=1;IP=10.244.3.50"}, {"runtimeConfig": {"ips": ["10.244.3.52"]}}),
    ],
)
def test_requested_address_is_taken_from_the_source_of_highest_precedence(
    node: Node, new_pod: NewPod, places: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    asked = {**places[0], **places[1]}
    pod = node.add(new_pod(), **asked)
    assert pod.address == "10.244.3.52"
    node.delete(pod, **asked)
    assert node.leftovers() == {}


@pytest.mark.parametrize("path", ["/etc/hostname", "/tmp", "/proc/self/ns/mnt", "/dev/null"])
@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_what_is_no_network_namespace_is_refused_as_such(node: Node, new_pod: NewPod, verb: str, path: str) -> None:
    pod = node.add(new_pod())
    other = Pod(pod.netns) if verb == "ADD" else pod
    with pytest.raises(PluginFailedError, match="CNI_NETNS") as raised:
        node.call(verb, other, CNI_NETNS=path, prevResult=pod.result)
    assert raised.value.code == 4


# Errors


@pytest.mark.parametrize("variable", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_COMMAND"])
@pytest.mark.parametrize("version", ["0.4.0", "1.1.0"])
def test_errors_of_the_environment_are_told_in_the_version_of_the_configuration(
    node: Node, new_pod: NewPod, variable: str, version: str
) -> None:
    with pytest.raises(PluginFailedError) as raised:
        node.call("ADD", new_pod(), cniVersion=version, **{variable: ""})
    assert (raised.value.code, raised.value.answer["cniVersion"]) == (4, version)


def test_call_without_a_command_is_an_error(node: Node, new_pod: NewPod) -> None:
    with pytest.raises(PluginFailedError, match="CNI_COMMAND") as raised:
        node.call("", new_pod(), CNI_COMMAND=None)
    assert raised.value.code == 4


@pytest.mark.parametrize("changes", [{"mtu": "x"}, {"name": None}, {"ipam": None}, {"bridge": 5}])
def test_unsupported_version_is_told_before_all_else(node: Node, new_pod: NewPod, changes: dict[str, Any]) -> None:
    with pytest.raises(PluginFailedError) as raised:
        node.call("ADD", new_pod(), cniVersion="9.9.9", **changes)
    assert raised.value.code == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"ovsdb": "/run/db.sock"},
        {"bridge": 'br"x'},
        {"bridge": "br\0x"},
        {"gateway": "10.244.3.0/24"},
        {"gateway": ["10.244.3.1/24", "10.244.4.1/24"]},
        {"ipam": {"type": "host\0local"}},
    ],
)
def test_configuration_that_cannot_work_is_named_as_such(node: Node, new_pod: NewPod, changes: dict[str, Any]) -> None:
    with pytest.raises(PluginFailedError, match=next(iter(changes))) as raised:
        node.call("ADD", new_pod(), **changes)
    assert raised.value.code == 7
    assert node.journal() == []


@pytest.mark.parametrize("stdin", ["silent", "closed", "no UTF-8"])
def test_version_needs_nothing_on_standard_input(stdin: str) -> None:
    given = os.pipe()
    with subprocess.Popen(
        ["sh", "-c", f"exec {PLUGIN} <&-"] if stdin == "closed" else [str(PLUGIN)],
        stdin=given[0],
        stdout=subprocess.PIPE,
        env={"CNI_COMMAND": "VERSION"},
    ) as process:
        try:
            if stdin == "no UTF-8":
                os.write(given[1], b"\xff")
                os.close(given[1])
            output, _nothing = process.communicate(timeout=5)
        finally:
            process.kill()
            os.close(given[0])
            if stdin != "no UTF-8":
                os.close(given[1])
    assert "1.1.0" in json.loads(output)["supportedVersions"]


@pytest.mark.parametrize(
    "answer",
    [
        '{"ips": ["10.244.3.9/24"]}',
        '{"ips": [{"gateway": "10.244.3.1"}]}',
        '{"ips": [{"address": "10.244.3.9"}]}',
        '{"ips": [{"address": "10.244.3.9/24"}], "routes": [{"gw": "10.244.3.1"}]}',
        '{"ips": [{"address": "10.244.3.9/24"}], "routes": 5}',
    ],
)
def test_invalid_ipam_result_is_named_as_ipams_fault(node: Node, new_pod: NewPod, answer: str) -> None:
    path = ipam_plugin(node, f"cat > /dev/null; [ $CNI_COMMAND != ADD ] || echo '{answer}'")
    with pytest.raises(PluginFailedError, match="IPAM"):
        node.add(new_pod(), CNI_PATH=path)
    assert (node.veths(), node.journal()) == ([], [])


@pytest.mark.parametrize("table", [100, 1000])
def test_every_field_of_an_ipam_route_reaches_the_kernel(node: Node, new_pod: NewPod, table: int) -> None:
    routes = [
        {"dst": "198.18.0.0/15", "gw": "10.244.3.1", "mtu": 1300, "advmss": 1200, "priority": 7, "table": table},
        {"dst": "198.51.100.0/24", "gw": "10.244.3.1", "mtu": 1280},
    ]
    answer = json.dumps({"ips": [{"address": "10.244.3.9/24"}], "routes": routes})
    path = ipam_plugin(node, f"cat > /dev/null; [ $CNI_COMMAND != ADD ] || echo '{answer}'")
    pod = node.add(new_pod(), CNI_PATH=path)
    assert pod.result["routes"][:2] == routes
    said = " ".join(pod.run("ip", "route", "show", "table", str(table)).split())
    assert said == "198.18.0.0/15 via 10.244.3.1 dev eth0 metric 7 mtu 1300 advmss 1200"
    assert "198.51.100.0/24 via 10.244.3.1 dev eth0 mtu 1280" in pod.run("ip", "route")
    node.delete(pod, CNI_PATH=path)


def test_bytes_that_are_no_utf_8_in_the_environment_pass(node: Node, new_pod: NewPod) -> None:
    path = os.fsdecode(b"/opt/\xff:") + CNI_PLUGINS
    node.delete(node.add(new_pod(), CNI_PATH=path), CNI_PATH=path, CNI_NETNS=os.fsdecode(b"/run/\xff"))
    assert node.leftovers() == {}


def test_process_that_a_hung_ipam_plugin_has_started_ends_with_it(node: Node, new_pod: NewPod) -> None:
    """It would hold the attachment's lock, and the runtime's pipe to our standard error."""
    ipam, program = node.conf["ipam"], node.program
    path = ipam_plugin(node, f"echo $$ > {node.directory}/hung; sleep 90")
    pod = new_pod()
    node.program = [INTERPRETER, "-ISE", "-c", _SHORT_CALL, library()]
    with pytest.raises(PluginFailedError, match="did not end within"):
        node.add(pod, CNI_PATH=path)
    node.conf["ipam"], node.program = ipam, program
    begun = time.monotonic()
    node.delete(pod)
    assert time.monotonic() - begun < 5


# DEL


def test_delete_goes_on_where_the_state_directory_cannot_be_written(node: Node, new_pod: NewPod) -> None:
    pod = node.add(new_pod())
    state = node.directory / "state"
    mount = f"mount --bind {state} {state} && mount -o remount,bind,ro {state}"
    node.program = ["unshare", "-m", "--propagation", "private", "sh", "-c", f"{mount} && exec {PLUGIN}"]
    with contextlib.suppress(PluginFailedError):
        node.delete(pod)
    assert (node.veths(), node.ports(), node.reservations()) == ([], [], [])


@pytest.mark.parametrize(
    "changes",
    [
        {"prevResult": 5},
        {"prevResult": {"interfaces": "x"}},
        {"mtu": "1420"},
        {"gateway": "x"},
        {"dns": 5},
        {"runtimeConfig": "x"},
        {"args": 5},
    ],
)
def test_delete_ignores_configuration_keys_that_it_does_not_use(
    node: Node, new_pod: NewPod, changes: dict[str, Any]
) -> None:
    node.call("DEL", node.add(new_pod()), **changes)
    assert node.leftovers() == {}


def test_failed_add_can_be_tried_again_while_open_vswitch_is_down(node: Node, new_pod: NewPod) -> None:
    node.switch.stop()
    pod = new_pod()
    for _attempt in range(2):
        with pytest.raises(PluginFailedError, match="is ovsdb-server running"):
            node.call("ADD", pod)
    node.call("DEL", pod)
    assert node.journal() == []
