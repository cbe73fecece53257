# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""EdgeVPN.io's config.json, compared with a model of its controller: the real package is not available to tests."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.accounts import XmppAccount, XmppAccountError
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.config import (
    EdgeVpnConfigError,
    EdgeVpnNode,
    EdgeVpnOverlay,
    TurnServer,
    app_bridge_address,
    build_edgevpn_config,
    check_edgevpn_config,
    check_node_ids,
    configured_bridges,
    names_to_resolve,
    node_id,
    tunnel_name,
)
from ansible_collections.evio.cni.tests.unit.evio_controller_model import CONTROLLERS, ControllerError, ControllerModel
from hypothesis import given
from hypothesis import strategies as st

NODE = EdgeVpnNode(
    node_id=node_id("kubernetes", "node3"),
    host_overlay=EdgeVpnOverlay("HOSTOVL", XmppAccount("node3-host@xmpp.example", "secret-1"), "10.10.0.3/16"),
    pod_overlay=EdgeVpnOverlay("PODOVL", XmppAccount("node3-pods@xmpp.example", "secret-2"), "10.244.3.1/24"),
    xmpp_host="xmpp.example",
    mtu=1400,
    stun=("stun.example:3478",),
    turn=(TurnServer("turn.example:3478", "evio", "secret-3"),),
)


def pod_device(settings: dict[str, Any]) -> dict[str, Any]:
    return {"BridgeController": {"Overlays": {"PODOVL": {"NetDevice": settings}}}}


def test_controller_sets_up_both_overlays_with_all_bridges() -> None:
    model = ControllerModel(build_edgevpn_config(NODE))
    assert model.managed == ["HOSTOVL", "PODOVL"]
    assert set(model.bridges) == {"eviHOSTOVL", "appHOSTOVL", "eviPODOVL", "appPODOVL"}
    assert model.bridges["appHOSTOVL"].address == "10.10.0.3/16"
    assert model.bridges["appPODOVL"].address == "10.244.3.1/24"
    assert {bridge.mtu for bridge in model.bridges.values()} == {1400}
    assert model.forwarding_bridges() == {"eviHOSTOVL", "eviPODOVL"}
    assert NODE.pod_overlay.bridge in model.bridges
    assert set(configured_bridges(model.config)) == set(model.bridges)


def test_pods_survive_a_restart_of_the_controller() -> None:
    model = ControllerModel(build_edgevpn_config(NODE))
    assert all(bridge.survives_restart for bridge in model.bridges.values())


def test_each_overlay_has_its_own_session_and_no_report_is_sent() -> None:
    model = ControllerModel(build_edgevpn_config(NODE))
    assert model.sessions() == {"node3-host@xmpp.example": "HOSTOVL", "node3-pods@xmpp.example": "PODOVL"}
    assert [model.waits_for(), *model.waits_for_others()] == ["xmpp.example"] * 3
    assert names_to_resolve(model.config) == ["xmpp.example"]
    assert not model.reports_home()


@pytest.mark.parametrize("protocol", ["BF", "STP", None])
def test_every_switch_protocol_forwards(protocol: str | None) -> None:
    model = ControllerModel(build_edgevpn_config(replace(NODE, switch_protocol=protocol)))
    assert model.forwarding_bridges() == {"eviHOSTOVL", "eviPODOVL"}


def test_node_without_claim_has_a_bridge_without_address() -> None:
    config = build_edgevpn_config(replace(NODE, pod_overlay=replace(NODE.pod_overlay, address=None)))
    assert ControllerModel(config).bridges["appPODOVL"].address is None
    assert app_bridge_address(config, "PODOVL") is None
    assert app_bridge_address(config, "HOSTOVL") == "10.10.0.3/16"


def test_overrides_are_merged_key_by_key_and_checked() -> None:
    config = build_edgevpn_config(replace(NODE, overrides={"Topology": {"Overlays": {"PODOVL": {"MaxSuccessors": 3}}}}))
    assert config["Topology"]["Overlays"] == {"HOSTOVL": {}, "PODOVL": {"MaxSuccessors": 3}}
    with pytest.raises(EdgeVpnConfigError, match="AutoDelete"):
        build_edgevpn_config(replace(NODE, overrides=pod_device({"AutoDelete": True})))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"Broker": {"NodeId": node_id("kubernetes", "node4")}}, "set evio_node_id"),
        ({"Broker": {"Overlays": ["HOSTOVL"]}}, "'PODOVL' is not in Broker.Overlays"),
        (pod_device({"MTU": 1300, "AppBridge": {"MTU": 1300}}), "set evio_mtu"),
        (pod_device({"AppBridge": {"IP4": "10.244.9.1"}}), "the address is 10.244.3.1/24, by inventory and claim"),
        (pod_device({"AppBridge": {"NamePrefix": "pod"}}), "the roles look for appPODOVL"),
    ],
)
def test_overrides_of_what_other_nodes_rely_on_are_refused(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(EdgeVpnConfigError, match=words):
        build_edgevpn_config(replace(NODE, overrides=overrides))


def test_secrets_do_not_show_in_a_traceback() -> None:
    assert "secret" not in repr(NODE)


def without(section: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        del config[section]["Overlays"]["HOSTOVL"]

    return change


def device(**settings: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["BridgeController"]["Overlays"]["PODOVL"]["NetDevice"].update(settings)

    return change


def app_bridge(**settings: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["BridgeController"]["Overlays"]["PODOVL"]["NetDevice"]["AppBridge"].update(settings)

    return change


def signal(**settings: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["Signal"]["Overlays"]["PODOVL"].update(settings)

    return change


def is_whole(config: dict[str, Any]) -> bool:
    """Return whether the controller sets up from the file all that our files promise."""
    try:
        model = ControllerModel(config)
        return (
            len(model.managed) == 2
            and len(model.bridges) == 4
            and len(model.sessions()) == 2
            and len({bridge.mtu for bridge in model.bridges.values()}) == 1
            and all(bridge.survives_restart for bridge in model.bridges.values())
            and len(model.forwarding_bridges()) == 2
            and model.pods_bridge("PODOVL") is not None
            and ip_interface(str(model.bridges["appPODOVL"].address)).version == 4
            and model.waits_for() == "xmpp.example"
            and not model.reports_home()
        )
    except (ControllerError, KeyError, ValueError):
        return False


def broken_by(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return the configuration after a change with which the controller does not set up both overlays."""
    config = build_edgevpn_config(NODE)
    assert is_whole(config)
    broken = copy.deepcopy(config)
    change(broken)
    assert not is_whole(broken)
    return broken


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *((without(section), f"{section}.Overlays: 'HOSTOVL' is missing") for section in CONTROLLERS),
        (device(SwitchProtocol="none"), "SwitchProtocol: 'none'"),
        (device(MTU=1410), "MTU: 1410"),
        (device(AutoDelete=True), "AutoDelete"),
        (device(NamePrefix="app"), "both bridges"),
        (device(AppBridge={"MTU": 1400, "AutoDelete": False, "IP4": "10.244.3.1"}), "IP4 and PrefixLen"),
        (device(AppBridge={"MTU": 1400, "IP4": "10.244.3.1", "PrefixLen": 24}), "AppBridge.AutoDelete"),
        (device(BridgeProvider="LXBR"), "BridgeProvider: 'LXBR'"),
        (app_bridge(BridgeProvider="VNIC"), "AppBridge.BridgeProvider: 'VNIC'"),
        (app_bridge(IP4="fd00::1", PrefixLen=64), "IP4: fd00::1/64 is no IPv4 address"),
        (lambda config: config["Signal"].pop("NetCheckHostName"), "NetCheckHostName: not given"),
        (lambda config: config["UsageReport"].update(Enabled=True), "UsageReport.Enabled: not false"),
        (lambda config: config["UsageReport"].clear(), "UsageReport.Enabled: not false"),
        (lambda config: config["Signal"]["Overlays"]["PODOVL"].pop("Username"), "Username: not given"),
        (lambda config: config["BridgeController"].pop("BoundedFlood"), "BoundedFlood"),
        (lambda config: config.pop("Topology"), "Topology"),
        (lambda config: config["Broker"].pop("Overlays"), "Broker.Overlays"),
    ],
)
def test_config_that_would_be_misread_is_refused(change: Callable[[dict[str, Any]], None], words: str) -> None:
    with pytest.raises(EdgeVpnConfigError, match=words):
        check_edgevpn_config(broken_by(change))


@pytest.mark.parametrize("username", ["node3-host@xmpp.example", "Node3-Host@XMPP.example"])
def test_one_account_for_both_overlays_is_refused(username: str) -> None:
    with pytest.raises(
        XmppAccountError, match=r"used twice, by Signal\.Overlays\.HOSTOVL and by Signal\.Overlays\.PODOVL"
    ):
        check_edgevpn_config(broken_by(signal(Username=username)))


def test_one_certificate_for_both_overlays_is_refused() -> None:
    config = build_edgevpn_config(NODE)
    x509 = {
        "AuthenticationMethod": "x509",
        "CertDirectory": "/etc/opt/evio",
        "CertFile": "node.pem",
        "KeyFile": "node.key",
    }
    for overlay in config["Signal"]["Overlays"].values():
        overlay.update(x509)
    with pytest.raises(EdgeVpnConfigError, match=r"CertFile node\.pem is used by more than one overlay"):
        check_edgevpn_config(config)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (("OVERLAY1", "OVERLAY2"), "same 5 characters"),
        (("HOST", "AVERYLONGOVERLAYNAME"), "20 characters"),
        (("HOST", "a b"), "letters"),
    ],
)
def test_overlay_ids_that_collide_or_are_too_long_are_refused(ids: tuple[str, str], words: str) -> None:
    host_overlay, pod_overlay = replace(NODE.host_overlay, id=ids[0]), replace(NODE.pod_overlay, id=ids[1])
    node = replace(NODE, host_overlay=host_overlay, pod_overlay=pod_overlay)
    with pytest.raises(EdgeVpnConfigError, match=words):
        build_edgevpn_config(node)


def test_node_ids_with_the_same_beginning_are_refused() -> None:
    with pytest.raises(EdgeVpnConfigError, match="a and b begin with the same 10 characters"):
        check_node_ids({"a": "0" * 31 + "1", "b": "0" * 31 + "2"})
    with pytest.raises(EdgeVpnConfigError, match="32 hexadecimal"):
        check_node_ids({"a": "0123"})


@given(st.sets(st.text(min_size=1, max_size=30), min_size=2, max_size=50))
def test_generated_node_ids_give_different_tunnel_names(names: set[str]) -> None:
    identities = {name: node_id("kubernetes", name) for name in names}
    check_node_ids(identities)
    model = ControllerModel(build_edgevpn_config(NODE))
    taps = {identity: model.tap("PODOVL", identity) for identity in identities.values()}
    assert len(set(taps.values())) == len(names)
    assert taps == {identity: tunnel_name("PODOVL", identity) for identity in taps}
