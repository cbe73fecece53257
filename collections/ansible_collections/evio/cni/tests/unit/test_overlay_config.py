# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The overlay's configuration files and the messages between agents: round trips, and what is refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from ansible_collections.evio.cni.plugins.module_utils.defaults import OVERLAY_MTU
from ansible_collections.evio.cni.plugins.module_utils.overlay.endpoint import (
    OverlayError,
    parse_endpoint,
    parse_public_endpoint,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.config import (
    OVERHEAD,
    OverlayConfig,
    OverlayPeer,
    PodRoutes,
    digest_of_keys,
    former_probe_address,
    keep_peers,
    keep_subnets,
    new_names,
    parse_overlay,
    parse_pod_routes,
    probe_address,
    rename_subnets,
    render_overlay,
    render_pod_routes,
    with_key,
)
from ansible_collections.evio.cni.plugins.module_utils.overlay.wireguard.messages import (
    LARGEST_NUMBER,
    MOST_TARGETS,
    SMALLEST_PAYLOAD,
    Call,
    FormerProbe,
    FormerTable,
    Message,
    MessageError,
    Probe,
    Rekey,
    decode,
    encode,
)
from hypothesis import given
from hypothesis import strategies as st


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def peer(number: int, endpoint: str | None = None) -> OverlayPeer:
    return OverlayPeer(f"n{number}", key(number), f"10.10.0.{number}", endpoint)


CONFIG = OverlayConfig(
    node="n1",
    address="10.10.0.1",
    host_cidr="10.10.0.0/16",
    public_key=key(1),
    peers=(peer(2, "198.51.100.2:51820"), peer(3)),
)
ROUTES = PodRoutes(("10.244.0.0/16",), {"n1": ("10.244.0.0/24",), "n2": ("10.244.1.0/24",)}, ("10.96.0.0/12",))


def test_rendered_files_are_parsed_to_the_same_values() -> None:
    assert parse_overlay(render_overlay(CONFIG)) == CONFIG
    assert parse_pod_routes(render_pod_routes(ROUTES)) == ROUTES


def test_next_keys_are_in_the_file_during_a_rotation_only() -> None:
    rotating = replace(
        CONFIG, next_public_key=key(101), peers=tuple(replace(p, next_public_key=key(102)) for p in CONFIG.peers[:1])
    )
    assert parse_overlay(render_overlay(rotating)) == rotating
    assert "next" not in render_overlay(CONFIG)


def test_node_has_the_key_of_its_key_file_if_that_is_one_of_the_two() -> None:
    rotating = replace(CONFIG, next_public_key=key(101))
    assert with_key(rotating, key(101)).public_key == key(101)
    assert with_key(rotating, CONFIG.public_key) == with_key(rotating, key(103)) == rotating
    assert digest_of_keys(with_key(rotating, key(101))) != digest_of_keys(rotating) == digest_of_keys(CONFIG)
    peers = tuple(replace(p, next_public_key=key(102)) for p in CONFIG.peers[:1])
    assert digest_of_keys(replace(CONFIG, peers=peers)) != digest_of_keys(replace(CONFIG, peers=CONFIG.peers[:1]))


def test_file_of_an_earlier_version_has_no_network_of_services() -> None:
    data = json.loads(render_pod_routes(ROUTES))
    del data["service_cidrs"]
    assert parse_pod_routes(json.dumps(data)) == replace(ROUTES, service_cidrs=())


def test_network_of_services_that_overlaps_the_pods_is_refused() -> None:
    with pytest.raises(OverlayError, match=r"the service network 10.244.0.0/17 overlaps the pod overlay 10.244.0.0/16"):
        parse_pod_routes(render_pod_routes(replace(ROUTES, service_cidrs=("10.244.0.0/17",))))


def test_default_mtu_is_what_wireguard_leaves_of_ethernet() -> None:
    assert OVERLAY_MTU == 1500 - OVERHEAD


def test_order_of_peers_does_not_change_the_file() -> None:
    assert render_overlay(replace(CONFIG, peers=CONFIG.peers[::-1])) == render_overlay(CONFIG)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "peers": 3}'])
def test_file_of_another_shape_is_refused_with_its_path(text: str) -> None:
    for parse in (parse_overlay, parse_pod_routes):
        with pytest.raises(OverlayError, match="/etc/evio/x"):
            parse(text, "/etc/evio/x")


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("198.51.100.11", "198.51.100.11:51820"),
        ("198.51.100.11:1194", "198.51.100.11:1194"),
        ("2001:db8::1", "[2001:db8::1]:51820"),
        ("[2001:db8::1]", "[2001:db8::1]:51820"),
        ("[2001:DB8::1]:1194", "[2001:db8::1]:1194"),
    ],
)
def test_endpoint_is_parsed_in_every_notation(text: str, endpoint: str) -> None:
    assert parse_endpoint(text) == endpoint
    assert parse_endpoint(endpoint) == endpoint


NO_ENDPOINTS = [
    *("", "relay", "relay:1", "198.51.100.11:0", "198.51.100.11:x", "[::1]:70000", "1.2.3"),
    *("[fe80::1%anything]:1", "[2001:db8::1%eth0]:1", "fe80::1", "169.254.169.254:80"),
    *("224.0.0.1:1", "[ff02::1]:1", "127.0.0.1:1", "[::1]:1", "0.0.0.0:1", "[::]:1", "0.1.2.3:1"),
    *("255.255.255.255:1", "240.0.0.1:1", "[::ffff:198.51.100.11]:1", "[198.51.100.11]:1"),
    *("198.51.100.11:+1", "198.51.100.11: 1", "198.51.100.11:1_0", "198.51.100.11:\u0661", "198.51.100.11:000001"),
    "[fe80::1%" + "a" * 1300 + "]:1",
]


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("relay.example.org", "relay.example.org:51820"),
        ("Relay-1.example.org:1194", "relay-1.example.org:1194"),
        ("198.51.100.11", "198.51.100.11:51820"),
        ("[2001:db8::1]:1194", "[2001:db8::1]:1194"),
    ],
)
def test_public_endpoint_may_have_a_dns_name(text: str, endpoint: str) -> None:
    assert parse_public_endpoint(text) == parse_public_endpoint(endpoint) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        *("relay", "-relay.example.org", "relay..org", "relay.example.org:0", "relay.example.org:", "a b.example.org"),
        *("relay_1.example.org", "1.2.3", "10.0.0.256", "x" * 64 + ".org", "x." * 130 + "org", "relay.example.org/x"),
        *("relay.example.org\n", "[relay.example.org]:1", "--help.example.org"),
    ],
)
def test_text_that_is_neither_address_nor_dns_name_is_refused(text: str) -> None:
    with pytest.raises(OverlayError, match="evio_public_endpoint"):
        parse_public_endpoint(text)


@pytest.mark.parametrize("text", NO_ENDPOINTS)
def test_text_that_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(OverlayError, match="evio_public_endpoint"):
        parse_endpoint(text)


def test_probe_addresses_are_where_hosts_have_no_services_and_follow_the_host_overlay() -> None:
    assert probe_address("10.10.3.4") == "247.10.3.4"
    assert probe_address("fd00::3:4") == "247.3.0.4"
    assert former_probe_address("10.10.3.4") == "169.254.3.4"


def test_every_address_may_be_a_nodes_whatever_services_are_in_the_link_local_network() -> None:
    # 169.254.169.254 is a cloud's metadata, 169.254.0.2 a boot volume, 169.254.20.10 node-local DNS.
    for address in ("10.10.169.254", "10.10.0.2", "10.10.20.10"):
        config = parse_overlay(render_overlay(replace(CONFIG, peers=(replace(peer(2), address=address),))))
        assert probe_address(config.peers[0].address).startswith("247.")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mtu": 500}, "mtu 500"),
        ({"interface": "a-name-that-is-too-long"}, "15 characters"),
        ({"host_cidr": "10.10.0.1/16"}, "host_cidr"),
        ({"address": "10.20.0.1"}, "outside the host overlay"),
        ({"listen_port": 0}, "listen_port"),
        ({"peers": (peer(2), replace(peer(3), address="10.10.0.2"))}, "belongs to both n2 and n3"),
        ({"peers": (replace(peer(2), public_key=key(1)),)}, "belongs to both n1 and n2"),
        ({"peers": (replace(peer(2), next_public_key=key(3)), peer(3))}, "belongs to both n2 and n3"),
        ({"peers": (replace(peer(2), next_public_key="bm8="),)}, "n2 has public key 'bm8='"),
        ({"peers": (replace(peer(2), next_public_key=7),)}, "n2 has public key 7"),
        ({"next_public_key": key(2)}, "belongs to both n1 and n2"),
        ({"peers": (replace(peer(2), endpoint=7),)}, "endpoint"),
        ({"listen_port": float("inf")}, "not an overlay"),
        ({"peers": (replace(peer(2), name="../x"),)}, "not a node's name"),
    ],
)
def test_overlay_that_cannot_work_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(OverlayError, match=words):
        parse_overlay(render_overlay(replace(CONFIG, **change)))  # type: ignore[arg-type]


def test_peers_to_keep_stay_and_other_old_peers_go() -> None:
    existing = (peer(2), peer(3), peer(4))
    renewed = replace(peer(2), public_key=key(9))
    assert keep_peers([renewed], existing, ["n2", "n3"]) == (renewed, peer(3))


def test_node_with_the_same_key_and_address_under_another_name_is_renamed() -> None:
    renamed, other = replace(peer(2), name="shop"), peer(3)
    assert new_names([renamed, other], [peer(2), other]) == {"n2": "shop"}
    assert keep_peers([renamed], [peer(2), other], ["n2", "n3"]) == (renamed, other)
    moved = replace(renamed, address="10.10.0.9")
    assert new_names([moved, other], [peer(2), other]) == {}
    assert keep_peers([moved], [peer(2)], ["n2"]) == (peer(2), moved)


def test_subnets_follow_the_new_names_even_to_a_name_that_another_node_had() -> None:
    routes = PodRoutes(
        ("10.244.0.0/16",), {"n2": ("10.244.2.0/24",), "n3": ("10.244.3.0/24",), "n4": ("10.244.4.0/24",)}
    )
    renamed = rename_subnets(routes, {"n2": "shop", "n3": "n4"})
    assert renamed.subnets == {"shop": ("10.244.2.0/24",), "n4": ("10.244.3.0/24",)}


def test_subnet_that_another_node_has_now_is_not_kept() -> None:
    wanted = PodRoutes(("10.244.0.0/16",), {"n3": ("10.244.1.0/24",)})
    assert keep_subnets(wanted, ROUTES, ["n1", "n2"]).subnets == {"n1": ("10.244.0.0/24",), "n3": ("10.244.1.0/24",)}


ENDPOINTS = st.sampled_from(["198.51.100.2:51820", "[2001:db8::1]:1", "192.168.1.10:65535"])
LANS = st.lists(ENDPOINTS, max_size=2).map(tuple)
TIMES = st.integers(0, LARGEST_NUMBER)
STATES = st.sampled_from(["down", "init", "up"])
PROBES = st.builds(Probe, STATES, TIMES, st.none() | TIMES, TIMES, st.booleans(), st.booleans(), st.none() | ENDPOINTS)
FORMER_PROBES = st.builds(FormerProbe, STATES, TIMES, st.none() | TIMES, TIMES, LANS)
LONGEST = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"
ADDRESSES = st.sampled_from(["10.10.0.2", "10.10.200.3", LONGEST[1:-7]])
CALLS = st.builds(
    Call,
    ADDRESSES,
    st.lists(ADDRESSES, min_size=1, max_size=MOST_TARGETS).map(tuple),
    st.lists(ADDRESSES, max_size=4).map(tuple),
    st.none() | ENDPOINTS | st.just(LONGEST),
    LANS | st.just((LONGEST, LONGEST)),
    st.booleans(),
)


@given(PROBES | FORMER_PROBES | CALLS | st.just(Rekey()), st.integers(0, 1392))
def test_encoded_message_is_decoded_to_the_same_value(message: Message, size: int) -> None:
    datagram = encode(message, size)
    assert len(datagram) >= size
    assert decode(datagram) == message


@given(CALLS, st.sampled_from([SMALLEST_PAYLOAD, 1200 - 28, 1392]))
def test_calls_fit_into_the_overlays_mtu(call: Call, size: int) -> None:
    calls = call.split(size)
    assert tuple(target for part in calls for target in part.targets) == call.targets
    assert all(len(encode(part)) <= size and decode(encode(part)) == part for part in calls)


@given(
    st.lists(st.tuples(ADDRESSES, st.none() | ENDPOINTS | st.just(LONGEST)), max_size=250), st.sampled_from([548, 1392])
)
def test_tables_for_former_versions_fit_into_the_overlays_mtu(rows: list[tuple[str, str | None]], size: int) -> None:
    tables = FormerTable(tuple(rows)).split(size)
    assert [row for table in tables for row in table.reached] == rows
    assert all(len(encode(table)) <= size and len(table.reached) <= 100 for table in tables)


def test_longest_call_to_one_node_fits_into_the_smallest_packet() -> None:
    address = LONGEST[1:-7]
    assert (
        len(encode(Call(address, (address,), (address,) * 4, LONGEST, (LONGEST,) * 2, False)))
        <= 470
        <= SMALLEST_PAYLOAD
    )


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_other_datagram_is_refused(datagram: bytes) -> None:
    with pytest.raises(MessageError):
        decode(datagram)


@pytest.mark.parametrize(
    "datagram",
    [
        b'{"probe":["dead",1,null,0,[]]}',
        b'{"probe":["up",1,null,0,["relay.example:1"]]}',
        b'{"poll":["dead",1,null,0,true]}',
        b'{"poll":["up",1,null,0]}',
        b'{"poll":["up",1,null,0,1]}',
        b'{"poll":["up",1,null,0,true,"192.0.2.1:1","192.0.2.1:1"]}',
        b'{"answer":["up",1,null,0,true,"-attack"]}',
        b'{"answer":["up",1,null,0,true,"relay.example:1"]}',
        b'{"answer":["up",1e999,null,0,true]}',
        b'{"answer":["up",1,true,0,true]}',
        b'{"call":["nowhere",["10.10.0.2"],[],null,[],false]}',
        b'{"call":["10.10.0.3",[],[],null,[],false]}',
        b'{"call":["10.10.0.3",["fe80::1%a"],[],null,[],false]}',
        b'{"call":["10.10.0.3",["10.10.0.2"],["10.10.0.1",167772162],null,[],false]}',
        b'{"call":["10.10.0.3",["10.10.0.2"],[],"[fe80::1%anything]:1",[],false]}',
        b'{"call":["10.10.0.3",["10.10.0.2"],[],null,[],0]}',
        b'{"call":["10.10.0.3","10.10.0.2",[],null,[],false]}',
        b'{"call":["10.10.0.3",[' + b",".join([b'"10.10.0.2"'] * 51) + b"],[],null,[],false]}",
        b'{"call":["10.10.0.3",["10.10.0.2"],[' + b",".join([b'"10.10.0.1"'] * 5) + b"],null,[],false]}",
        b'{"call":{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}}',
        b"[" * 5000,
        b'{"probe":["up",1e999,null,0,[]]}',
        b'{"probe":["up",NaN,null,0,[]]}',
        b'{"probe":["up",1.5,null,0,[]]}',
        b'{"probe":["up",true,null,0,[]]}',
        b'{"probe":["up","1",null,0,[]]}',
        b'{"probe":["up",-1,null,0,[]]}',
        b'{"probe":["up",1,9007199254740992,0,[]]}',
        b'{"probe":["up",1' + b"0" * 5000 + b",null,0,[]]}",
        b'{"probe":[["up"],1,null,0,[]]}',
        b'{"probe":["up",1,null,0,{"0":1}]}',
        b'{"probe":["up",1,null,0,"ab"]}',
        b'{"probe":["up",1,null,0,["192.168.1.2:1","192.168.1.3:1","192.168.1.4:1"]]}',
        b'{"probe":["up",1,null,0,[]],"table":[]}',
        b'{"probe":{"a":1,"b":2,"c":3,"d":4,"e":5}}',
        '{"probe":["up",\u0661,null,0,[]]}'.encode(),
        '{"probe":["up",1,null,0,[]]}'.encode("utf-16"),
    ],
)
def test_message_with_bad_content_is_refused(datagram: bytes) -> None:
    with pytest.raises(MessageError) as refused:
        decode(datagram)
    assert len(str(refused.value)) < 300
