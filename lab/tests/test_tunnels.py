"""The peer that gets a packet, from the output of wg(8)."""

from __future__ import annotations

import ipaddress

import pytest
from tunnels import host_of, peer_for, peers_of

DUMP = """\
private\tpublic\t51820\toff
hub\t(none)\t198.51.100.11:51820\t10.10.0.0/16,10.244.0.0/16,fd00::/64\t1700000000\t1\t2\t25
spoke\t(none)\t198.51.100.23:51820\t10.10.0.3/32,10.244.3.0/24\t1700000000\t1\t2\t25
sixth\t(none)\t[2001:db8:24::10]:51820\t10.10.0.5/32,10.244.5.0/24\t1700000000\t1\t2\t25
punched\t(none)\t198.51.100.24:51820\t(none)\t0\t0\t0\toff
"""


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("10.244.3.7", "198.51.100.23:51820"),
        ("10.244.4.7", "198.51.100.11:51820"),
        ("10.244.5.7", "[2001:db8:24::10]:51820"),
        ("192.0.2.1", None),
    ],
)
def test_longest_matching_prefix_gets_the_packet(address: str, endpoint: str | None) -> None:
    peer = peer_for(ipaddress.IPv4Address(address), peers_of(DUMP))
    assert (peer.endpoint if peer else None) == endpoint


def test_address_of_an_endpoint_is_found_in_both_notations() -> None:
    assert [host_of(endpoint) for endpoint in ("198.51.100.11:51820", "[2001:db8:24::10]:51820")] == [
        "198.51.100.11",
        "2001:db8:24::10",
    ]
