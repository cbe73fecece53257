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
    EdgeVpnNode,
    EdgeVpnOverlay,
    EdgeVpnTuning,
    TurnServer,
    app_bridge_address,
    build_edgevpn_config,
    check_edgevpn_config,
    names_to_resolve,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.naming import (
    check_node_ids,
    check_overlay_ids,
    configured_bridges,
    node_id,
    tap_characters,
    tunnel_name,
    tunnel_prefix,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.schema import (
    LOG_DIRECTORY,
    OPENFLOW_PORTS,
    EdgeVpnConfigError,
    check_settings,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.edgevpn.start import remove_bridges_of_other_protocol
from ansible_collections.evio.cni.tests.unit import evio_controller_model
from ansible_collections.evio.cni.tests.unit.evio_controller_model import (
    CONTROLLERS,
    ControllerError,
    ControllerModel,
    SwitchState,
)
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
    assert [model.waits_for(), *model.waits_for_in_thread()] == ["xmpp.example"] * 3
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
    config = build_edgevpn_config(replace(NODE, overrides={"Topology": {"Overlays": {"PODOVL": {"MinSuccessors": 3}}}}))
    assert config["Topology"]["Overlays"] == {"HOSTOVL": {}, "PODOVL": {"MinSuccessors": 3}}
    with pytest.raises(EdgeVpnConfigError, match="AutoDelete"):
        build_edgevpn_config(replace(NODE, overrides=pod_device({"AutoDelete": True})))


def test_list_in_an_override_is_added_to_ours_unless_it_shall_replace_it() -> None:
    overrides = {
        "LinkManager": {"Stun": ["site.example:3478"], "Overlays": {"PODOVL": {"IgnoredNetInterfaces": ["lo"]}}}
    }
    added = build_edgevpn_config(replace(NODE, overrides=overrides))["LinkManager"]
    assert added["Stun"] == ["stun.example:3478", "site.example:3478"]
    assert added["Overlays"]["PODOVL"] == added["Overlays"]["HOSTOVL"]
    replaced = build_edgevpn_config(replace(NODE, overrides=overrides, replaces_lists=True))["LinkManager"]
    assert replaced["Stun"] == ["site.example:3478"]
    assert replaced["Overlays"]["PODOVL"]["IgnoredNetInterfaces"] == ["lo"]


def test_topology_looks_every_5_seconds_and_logs_outlive_a_restart() -> None:
    model = ControllerModel(build_edgevpn_config(NODE))
    assert model.topology_seconds() == 5
    assert not model.empties_logs()


def test_tuning_of_the_site_gets_to_its_places() -> None:
    tuning = EdgeVpnTuning(
        topology_interval=20,
        min_successors=3,
        max_on_demand_edges=2,
        log_level="DEBUG",
        keep_logs=False,
        bounded_flood={"LinkCheckInterval": 30, "FlowIdleTimeout": 120},
    )
    config = build_edgevpn_config(replace(NODE, tuning=tuning))
    edges = {"MinSuccessors": 3, "MaxOnDemandEdges": 2}
    assert config["Topology"] == {"TimerInterval": 20, "Overlays": {"HOSTOVL": edges, "PODOVL": edges}}
    assert config["BridgeController"]["BoundedFlood"] == {
        "LinkCheckInterval": 30,
        "Overlays": {"HOSTOVL": {"FlowIdleTimeout": 120}, "PODOVL": {"FlowIdleTimeout": 120}},
    }
    assert (config["Broker"]["LogLevel"], config["Broker"]["KeepLogsOnStart"]) == ("DEBUG", False)
    with pytest.raises(EdgeVpnConfigError, match="the nearest is FlowIdleTimeout"):
        build_edgevpn_config(replace(NODE, tuning=EdgeVpnTuning(bounded_flood={"FlowIdelTimeout": 3})))


def test_host_overlay_alone_has_no_bridge_for_pods() -> None:
    model = ControllerModel(build_edgevpn_config(replace(NODE, pod_overlay=None)))
    assert set(model.bridges) == {"eviHOSTOVL", "appHOSTOVL"}
    assert model.sessions() == {"node3-host@xmpp.example": "HOSTOVL"}
    assert model.forwarding_bridges() == {"eviHOSTOVL"}


@pytest.mark.parametrize(("protocol", "works"), [("BF", True), ("STP", True), (None, False)])
def test_learning_switches_are_refused_with_three_nodes_because_they_loop(protocol: str | None, works: bool) -> None:
    node = replace(NODE, switch_protocol=protocol)
    assert ControllerModel(build_edgevpn_config(node)).forwards("PODOVL", 3) is works
    if not works:
        with pytest.raises(EdgeVpnConfigError, match="tunnels between 3 nodes are one"):
            build_edgevpn_config(replace(node, node_count=3))


def test_controller_leaves_the_settings_of_the_other_protocol_behind() -> None:
    """Why the module clears them: see test_edgevpn_modules."""
    flood = ControllerModel(build_edgevpn_config(NODE))
    tree = ControllerModel(build_edgevpn_config(replace(NODE, switch_protocol="STP")))
    assert not flood.forwards("PODOVL", 2, tree.switch_after_start("PODOVL", SwitchState()))
    assert not tree.forwards("PODOVL", 2, flood.switch_after_start("PODOVL", SwitchState()))


def test_ports_of_the_openflow_controller_are_those_that_the_firewall_closes() -> None:
    model = ControllerModel(build_edgevpn_config(NODE))
    assert tuple(port for _address, port in model.listens()) == OPENFLOW_PORTS
    assert evio_controller_model.OPENFLOW_PORTS == OPENFLOW_PORTS


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"Broker": {"NodeId": node_id("kubernetes", "node4")}}, "set evio_node_id"),
        ({"Broker": {"Overlays": ["THIRD"]}}, "'THIRD' is missing"),
        (pod_device({"MTU": 1300, "AppBridge": {"MTU": 1300}}), "set evio_mtu"),
        (pod_device({"AppBridge": {"IP4": "10.244.9.1"}}), "the address is 10.244.3.1/24, by inventory and claim"),
        (pod_device({"AppBridge": {"NamePrefix": "pod"}}), "the roles look for appPODOVL"),
        (pod_device({"SwitchProtocol": "STP"}), "set evio_switch_protocol"),
        (pod_device({"SwitchProtocol": None}), "set evio_switch_protocol"),
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
            and all(model.is_encrypted(overlay) and model.opens_tunnels(overlay) for overlay in model.managed)
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
        (device(SwitchProtocol="none"), "SwitchProtocol: 'NONE'"),
        (device(MTU=1410), "MTU: 1410"),
        (device(AutoDelete=True), "AutoDelete"),
        (device(NamePrefix="app"), "both bridges"),
        (device(AppBridge={"MTU": 1400, "AutoDelete": False, "IP4": "10.244.3.1"}), "IP4 and PrefixLen"),
        (device(AppBridge={"MTU": 1400, "IP4": "10.244.3.1", "PrefixLen": 24}), "AppBridge.AutoDelete"),
        (app_bridge(IP4="fd00::1", PrefixLen=64), "IP4: fd00::1/64 is no IPv4 address"),
        (lambda config: config["Signal"].pop("NetCheckHostName"), "NetCheckHostName: not given"),
        (lambda config: config["UsageReport"].update(Enabled=True), "UsageReport.Enabled: not false"),
        (lambda config: config["UsageReport"].clear(), "UsageReport.Enabled: not false"),
        (lambda config: config["Signal"]["Overlays"]["PODOVL"].pop("Username"), "Username: not given"),
        (lambda config: config["BridgeController"].pop("BoundedFlood"), "BoundedFlood"),
        (lambda config: config["BridgeController"]["BoundedFlood"]["Overlays"].update(X={}), "'X' is no overlay with"),
        (lambda config: config["Topology"]["Overlays"]["PODOVL"].update(ManualTopology=True), "without StaticEdges"),
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


def set_in(section: str, overlay: str = "", **settings: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        (config[section]["Overlays"][overlay] if overlay else config[section]).update(settings)

    return change


MISREAD = [
    (device(BridgeProvider="LXBR"), r"NetDevice\.BridgeProvider: 'LXBR' is not 'OVS'; pods would have no Open vSwitch"),
    (app_bridge(BridgeProvider="VNIC"), r"AppBridge\.BridgeProvider: 'VNIC'"),
    (device(SDNControllerPort=6640), "listens on 6633 all the same, so the bridge would forward nothing"),
    (set_in("Broker", LogLevel="info"), "Broker.LogLevel: 'info' is not 'CRITICAL' or"),
    (set_in("Topology", LogLevel="LOUD"), "it would end at its start"),
    (set_in("Broker", Model="Default"), "Broker.Model: do not set it"),
    (set_in("Signal", Enabled=False), "Signal.Enabled: False is not True; it would end, because other parts need"),
    (signal(AuthenticationMethod="x509"), "with x509 it has no account name"),
    (signal(AuthenticationMethod="plain"), "with any other word its signalling ends"),
    (set_in("Topology", "PODOVL", LocationId=7), "talk by Geneve, which is not encrypted"),
    (set_in("Topology", "PODOVL", Role="leaf"), "a leaf accepts no tunnels"),
]
"""Values that the controller misreads, each with words of the refusal."""


@pytest.mark.parametrize(("change", "words"), MISREAD)
def test_value_that_would_be_misread_is_refused(change: Callable[[dict[str, Any]], None], words: str) -> None:
    with pytest.raises(EdgeVpnConfigError, match=words):
        check_settings(broken_by(change))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"Topology": {"Overlays": {"PODOVL": {"MaxSuccessors": 3}}}}, "no such setting; the nearest is MinSuccessors"),
        ({"Topologie": {"TimerInterval": 3}}, "Topologie: .* the nearest is Topology"),
        ({"Topology": {"MinSuccessors": 3}}, r"reads MinSuccessors in Topology\.Overlays\.\* alone"),
        ({"LinkManager": {"Whatever": 1}}, "LinkManager has Enabled, IgnoredNetInterfaces"),
        ({"Topology": {"TimerInterval": "5"}}, "TimerInterval: '5' is not an integer"),
        ({"Topology": {"TimerInterval": True}}, "TimerInterval: True is not an integer"),
        ({"Topology": {"TimerInterval": 0}}, "TimerInterval: 0 is not 1 or more"),
        ({"Topology": {"TimerInterval": 7200}}, "TimerInterval: 7200 is not 3600 or less"),
        ({"Topology": 5}, "Topology: 5 is not a dictionary"),
        ({"LinkManager": {"Stun": "stun.example:3478"}}, "is not a list"),
        ({"LinkManager": {"Stun": ["stun.example"]}}, r"LinkManager\.Stun\[1\]: 'stun.example' is not of the form"),
        ({"LinkManager": {"Turn": [{"Adress": "a:1"}]}}, r"Turn\[1\]\.Adress: .* the nearest is Address"),
        ({"Signal": {"Overlays": {"PODOVL": {"Port": "xmpp"}}}}, "'xmpp' is not a port from 1 to 65535"),
        ({"Broker": {"Directory": "/etc"}}, "it deletes every file of this directory at each start"),
        ({"Broker": {"MaxArchives": 0}}, "logs fill the disk"),
        ({"BridgeController": {"BoundedFlood": {"Overlays": {"PODOVL": {"DemandThreshold": "fast"}}}}}, "of the form"),
    ],
)
def test_override_that_the_controller_does_not_know_is_refused(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(EdgeVpnConfigError, match=words):
        build_edgevpn_config(replace(NODE, overrides=overrides))


def test_file_that_we_build_passes_its_own_schema() -> None:
    overrides = {"Broker": {"Directory": f"{LOG_DIRECTORY}/cluster"}, "LinkManager": {"IgnoredNetInterfaces": ["eth9"]}}
    for protocol in ("BF", "STP", None):
        check_settings(build_edgevpn_config(replace(NODE, switch_protocol=protocol, overrides=overrides)))


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (("OVERLAY1", "OVERLAY2"), "differ in the first 5 characters"),
        (("HO", "HOab"), "begin with 'HO' and 'HOab', and can be the same"),
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


@pytest.mark.parametrize("ids", [("HOST", "HOSTP"), ("H", "P"), ("AA", "AB")])
def test_short_overlay_ids_leave_more_room_for_the_peers_id(ids: tuple[str, str]) -> None:
    check_overlay_ids(ids)
    node = replace(
        NODE, host_overlay=replace(NODE.host_overlay, id=ids[0]), pod_overlay=replace(NODE.pod_overlay, id=ids[1])
    )
    config = build_edgevpn_config(node)
    model, peer = ControllerModel(config), node_id("kubernetes", "node4")
    for overlay in ids:
        name = model.tap(overlay, peer)
        assert len(name) == 15
        assert name == tunnel_name(tunnel_prefix(config, overlay), peer)


def test_tap_name_prefix_of_the_site_is_the_one_that_tunnels_have() -> None:
    overrides = {"LinkManager": {"Overlays": {"PODOVL": {"TapNamePrefix": "cluster-p"}}}}
    config = build_edgevpn_config(replace(NODE, overrides=overrides))
    peer = node_id("kubernetes", "node4")
    assert tunnel_name(tunnel_prefix(config, "PODOVL"), peer) == ControllerModel(config).tap("PODOVL", peer)
    assert tap_characters(config) == 6
    ids = {"a": "0" * 32, "b": "0" * 8 + "1" * 24}
    check_node_ids(ids)
    with pytest.raises(EdgeVpnConfigError, match="same 6 characters"):
        check_node_ids(ids, tap_characters(config))
    same = {"LinkManager": {"Overlays": {"PODOVL": {"TapNamePrefix": "HOSTO"}}}}
    with pytest.raises(EdgeVpnConfigError, match="begin with 'HOSTO' and 'HOSTO'"):
        build_edgevpn_config(replace(NODE, overrides=same))


@given(st.sets(st.text(min_size=1, max_size=30), min_size=2, max_size=50))
def test_generated_node_ids_give_different_tunnel_names(names: set[str]) -> None:
    identities = {name: node_id("kubernetes", name) for name in names}
    check_node_ids(identities)
    model = ControllerModel(build_edgevpn_config(NODE))
    taps = {identity: model.tap("PODOVL", identity) for identity in identities.values()}
    assert len(set(taps.values())) == len(names)
    assert taps == {identity: tunnel_name("PODOV", identity) for identity in taps}


@pytest.mark.parametrize("damaged", [{}, {"BridgeController": {"Overlays": {"PODOVL": {}}}}, {"BridgeController": []}])
def test_damaged_file_is_named_before_open_vswitch_is_asked(damaged: dict[str, Any]) -> None:
    with pytest.raises(EdgeVpnConfigError, match="configuration is damaged"):
        remove_bridges_of_other_protocol(damaged, ovsdb="unix:/nonexistent")
