# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The CNI specification: parameters in the environment, versions, errors, and results of every version."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.cni import spec
from ansible_collections.evio.cni.plugins.module_utils.cni.result import shape_result
from ansible_collections.evio.cni.plugins.module_utils.cni.spec import CniError, parse_call

ADD = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "0a1b",
    "CNI_NETNS": "/run/netns/pod",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}
RESULT: dict[str, Any] = {
    "interfaces": [
        {"name": "br-evio", "mac": "0a:58:0a:f4:03:01", "mtu": 1420},
        {"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1420, "sandbox": "/run/netns/pod", "socketPath": "/s"},
    ],
    "ips": [
        {"interface": 1, "address": "10.244.3.2/24", "gateway": "10.244.3.1"},
        {"interface": 1, "address": "fd00::2/64", "gateway": "fd00::1"},
    ],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.3.1", "mtu": 1400, "advmss": 1360, "table": 7, "scope": 0}],
    "dns": {"nameservers": ["10.96.0.10"]},
}


def failure(**changes: str) -> CniError:
    with pytest.raises(CniError) as raised:
        parse_call({**ADD, **changes})
    return raised.value


def test_codes_are_those_of_the_specification() -> None:
    names = {
        "INCOMPATIBLE_VERSION": 1,
        "INVALID_ENVIRONMENT": 4,
        "IO_FAILURE": 5,
        "UNDECODABLE": 6,
        "INVALID_CONFIG": 7,
        "TRY_AGAIN": 11,
        "NOT_AVAILABLE": 50,
        "LIMITED_CONNECTIVITY": 51,
    }
    assert {name: getattr(spec, name) for name in names} == names
    assert min(spec.FAILED, spec.NOT_AS_ATTACHED) >= 100


def test_error_object_has_the_configurations_version() -> None:
    error = CniError(spec.TRY_AGAIN, "not now", "the switch is starting")
    assert error.to_json("0.4.0") == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "not now",
        "details": "the switch is starting",
    }


def test_call_has_the_parameters_of_the_environment() -> None:
    call = parse_call({**ADD, "CNI_ARGS": "IgnoreUnknown=1;IP=10.244.3.9;MAC=", "HOME": "/root"})
    assert (call.command, call.container_id, call.ifname) == ("ADD", "0a1b", "eth0")
    assert (call.netns, call.path) == ("/run/netns/pod", "/opt/cni/bin:/usr/lib/cni")
    assert call.arguments == {"IgnoreUnknown": "1", "IP": "10.244.3.9", "MAC": ""}


@pytest.mark.parametrize("command", ["", "add", "UPDATE"])
def test_error_for_an_unknown_command_lists_the_known_ones(command: str) -> None:
    error = failure(CNI_COMMAND=command)
    assert error.code == spec.INVALID_ENVIRONMENT
    assert repr(command) in error.msg
    assert "ADD, DEL, CHECK, STATUS, GC, VERSION" in error.msg


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("ADD", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH"),
        ("CHECK", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH"),
        ("DEL", "CNI_CONTAINERID, CNI_IFNAME, CNI_PATH"),
        ("GC", "CNI_PATH"),
        ("STATUS", "CNI_PATH"),
    ],
)
def test_error_names_all_missing_parameters_at_once(command: str, needed: str) -> None:
    with pytest.raises(CniError) as raised:
        parse_call({"CNI_COMMAND": command})
    assert raised.value.code == spec.INVALID_ENVIRONMENT
    assert raised.value.msg.startswith(f"{needed} not set")


@pytest.mark.parametrize("name", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"])
def test_empty_parameter_counts_as_missing(name: str) -> None:
    assert failure(**{name: ""}).msg.startswith(f"{name} not set")


def test_version_and_delete_need_no_namespace() -> None:
    assert parse_call({"CNI_COMMAND": "VERSION"}).command == "VERSION"
    assert parse_call({**ADD, "CNI_COMMAND": "DEL", "CNI_NETNS": ""}).netns == ""


def test_names_are_not_checked_in_calls_without_an_attachment() -> None:
    # Runtimes have been seen to send dummies with VERSION and STATUS.
    for command in ("VERSION", "STATUS", "GC"):
        assert parse_call({**ADD, "CNI_COMMAND": command, "CNI_CONTAINERID": "../x", "CNI_IFNAME": "a/b"})


@pytest.mark.parametrize("container_id", ["a", "A.b_c-d", "0" * 64, "x" * 200])
def test_valid_container_ids_are_accepted(container_id: str) -> None:
    assert parse_call({**ADD, "CNI_CONTAINERID": container_id}).container_id == container_id


@pytest.mark.parametrize(
    "container_id", ["-a", ".a", "_a", "../a", "a/b", "a:b", "a b", "a\n", "\u00e4", "a\udcff", "x" * 201]
)
def test_container_ids_that_cannot_be_a_file_name_are_refused(container_id: str) -> None:
    error = failure(CNI_CONTAINERID=container_id)
    assert error.code == spec.INVALID_ENVIRONMENT
    assert f"CNI_CONTAINERID {container_id!r}" in error.msg


@pytest.mark.parametrize("ifname", ["e", "eth0", "net-1.2_3", "fifteen-letters", "\u00fc" * 7, "\udcff0"])
def test_interface_names_that_the_kernel_accepts_are_accepted(ifname: str) -> None:
    assert parse_call({**ADD, "CNI_IFNAME": ifname}).ifname == ifname


@pytest.mark.parametrize(
    "ifname", ["sixteen-letters-", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\n", "\u00fc" * 8, "\ud800"]
)
def test_interface_names_that_the_kernel_refuses_are_refused(ifname: str) -> None:
    error = failure(CNI_IFNAME=ifname)
    assert error.code == spec.INVALID_ENVIRONMENT
    assert f"CNI_IFNAME {ifname!r}" in error.msg


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", {}),
        (";", {}),
        ("A=1", {"A": "1"}),
        ("A=1;", {"A": "1"}),
        ("A=b=c;D=", {"A": "b=c", "D": ""}),
        ("A=1;A=2", {"A": "2"}),
    ],
)
def test_arguments_are_pairs(text: str, arguments: dict[str, str]) -> None:
    assert parse_call({**ADD, "CNI_ARGS": text}).arguments == arguments


def test_error_names_an_argument_that_is_no_pair() -> None:
    error = failure(CNI_ARGS="A=1;nonsense")
    assert (error.code, "'nonsense'" in error.msg) == (spec.INVALID_ENVIRONMENT, True)


def test_invalid_arguments_do_not_stop_del() -> None:
    assert parse_call({**ADD, "CNI_COMMAND": "DEL", "CNI_ARGS": "nonsense"}).arguments == {}


@pytest.mark.parametrize(
    ("command", "since"),
    [
        ("ADD", "0.3.1"),
        ("DEL", "0.3.1"),
        ("CHECK", "0.4.0"),
        ("STATUS", "1.1.0"),
        ("GC", "1.1.0"),
    ],
)
def test_commands_are_served_since_the_version_that_introduced_them(command: str, since: str) -> None:
    versions = spec.SUPPORTED_VERSIONS
    assert versions == ("0.3.1", "0.4.0", "1.0.0", "1.1.0")
    for version in versions[versions.index(since) :]:
        spec.check_version(command, version)
    for version in versions[: versions.index(since)]:
        with pytest.raises(
            CniError, match=f"{command} came with CNI {since}, the configuration is of {version}"
        ) as old:
            spec.check_version(command, version)
        assert old.value.code == spec.INCOMPATIBLE_VERSION


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0", "1.2.0", "1.1", "v1.0.0", ""])
def test_error_for_an_unsupported_version_lists_the_supported_ones(version: str) -> None:
    with pytest.raises(CniError) as raised:
        spec.check_version("ADD", version)
    assert raised.value.code == spec.INCOMPATIBLE_VERSION
    assert repr(version) in raised.value.msg
    assert raised.value.details == "supported are 0.3.1, 0.4.0, 1.0.0, 1.1.0"


def test_version_result_has_the_requested_version() -> None:
    assert spec.version_result("0.4.0") == {
        "cniVersion": "0.4.0",
        "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


@pytest.mark.parametrize("name", ["evio", "k8s.pod_net-1", "0", "n" * 200])
def test_valid_network_names_are_accepted(name: str) -> None:
    spec.check_network_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".evio", "-evio", "a/b", "a b", "a\n", "\u00e4", "n" * 201])
def test_invalid_network_names_are_refused(name: str) -> None:
    with pytest.raises(CniError) as raised:
        spec.check_network_name(name)
    assert (raised.value.code, repr(name) in raised.value.msg) == (spec.INVALID_CONFIG, True)


def test_result_of_the_newest_version_has_all_keys() -> None:
    assert shape_result(RESULT, "1.1.0") == {"cniVersion": "1.1.0", **RESULT}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_results_of_older_versions_lack_newer_keys(version: str) -> None:
    shaped = shape_result(RESULT, version)
    assert shaped["cniVersion"] == version
    assert shaped["interfaces"] == [
        {"name": "br-evio", "mac": "0a:58:0a:f4:03:01"},
        {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/pod"},
    ]
    assert shaped["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.244.3.1"}]
    assert shaped["dns"] == RESULT["dns"]


@pytest.mark.parametrize("version", spec.SUPPORTED_VERSIONS)
def test_address_has_its_ip_version_before_1_0_0_and_not_after(version: str) -> None:
    told = [ip.get("version") for ip in shape_result(RESULT, version)["ips"]]
    assert told == (["4", "6"] if version in ("0.3.1", "0.4.0") else [None, None])
    assert "version" not in RESULT["ips"][0]


def test_result_without_dns_has_no_key_for_it() -> None:
    assert "dns" not in shape_result({**RESULT, "dns": {}}, "1.0.0")
    assert shape_result({"interfaces": [], "ips": []}, "1.0.0")["routes"] == []
