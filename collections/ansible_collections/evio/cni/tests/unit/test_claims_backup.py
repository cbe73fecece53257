# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file of a backup: what is written is read again, and what is damaged or forged is refused in one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.backup import (
    LARGEST_FILE,
    Backup,
    backup_of,
    decode_backup,
    encode_backup,
    holds_the_same,
)
from ansible_collections.evio.cni.plugins.module_utils.claims.model import Claim, ClaimError, PoolConfig, Released
from ansible_collections.evio.cni.plugins.module_utils.claims.model import Snapshot as RegistrySnapshot
from ansible_collections.evio.cni.plugins.module_utils.errors import EvioError
from ansible_collections.evio.cni.plugins.module_utils.subnets import parse_pools
from hypothesis import given
from hypothesis import strategies as st

BACKUP = Backup(
    "kubernetes",
    "00000000000000ab",
    91,
    1_700_000_000.0,
    PoolConfig(parse_pools("10.244.0.0/16,fd00::/48", "8,16"), ("10.244.200.0/24",), {"node9": ("10.244.9.0/24",)}),
    {
        "node1": Claim("node1", "1" * 32, ("10.244.0.0/24", "fd00::/64"), 1.5, 7),
        "node2": Claim("node2", "2" * 32, ("10.244.1.0/24",), 2.5, 8),
    },
    {"10.244.3.0/24": Released("node3", 3.5)},
)


def test_file_is_read_as_it_was_written() -> None:
    assert decode_backup(encode_backup(BACKUP)) == BACKUP


def test_backups_are_the_same_whenever_they_were_taken() -> None:
    later = decode_backup(encode_backup(BACKUP).replace("2023-11-14", "2024-11-14"))
    assert later != BACKUP
    assert holds_the_same(later, BACKUP)
    assert not holds_the_same(decode_backup(encode_backup(BACKUP).replace("node2", "node4")), BACKUP)


def test_empty_registry_is_not_backed_up() -> None:
    with pytest.raises(ClaimError, match="nothing to back up"):
        backup_of("kubernetes", RegistrySnapshot(), 0.0)


def changed(*path: str | int, value: Any = None) -> str:
    """Return the file with another value in one place, or without that place."""
    whole = json.loads(encode_backup(BACKUP))
    place = whole
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON, or only a part of it"),
        (encode_backup(BACKUP)[:-40], "no JSON, or only a part of it"),
        ("[" * 100_000, "no JSON, or only a part of it"),
        (" " * (LARGEST_FILE + 1), "larger than 32 MiB"),
        ("[]", "not of the kind"),
        (changed("kind", value="other"), "not of the kind"),
        (changed("version", value=2), "the file has version 2, this version of evio.cni knows 1"),
        (changed("claims"), "'claims' is missing"),
        (changed("claims", value=[1]), "the file is damaged"),
        (changed("pool", "pools", value=[]), "it has no pool"),
        (changed("pool", "pools", 0, "pod_cidr", value="10.244.0.1/16"), "pod_cidr"),
        (changed("pool", "pins", value={"../x": []}), "cannot be the name"),
        (changed("pool", "reserved", value="10.0.0.0/8"), "is no list"),
        (changed("cluster", value="../../etc"), "cannot be the name"),
        (changed("claims", 0, "node", value="node2"), "the node 'node2' twice"),
        (changed("claims", 0, "node", value=7), "'7' is no text"),
        (changed("claims", 0, "cidrs", value=["10.244.1.0/24"]), "the subnet '10.244.1.0/24' twice"),
        (changed("claims", 0, "cidrs", value=["10.245.1.0/24"]), "node1 has 10.245.1.0/24, no subnet of"),
        (changed("claims", 0, "cidrs", value=["10.244.7.0/24", "10.244.8.0/24"]), "node1 is pinned to both"),
        (changed("claims", 0, "cidrs", value=[]), "has no subnet, or no machine-id"),
        (changed("claims", 0, "machine_id", value="a\nb"), "has no subnet, or no machine-id"),
        (changed("claims", 0, "claimed", value="nan"), "is no time"),
        (changed("released", 0, "released", value=-1), "is no time"),
        (changed("released", 0, "cidr", value="10.244.0.0/24"), "twice"),
        (changed("released", 0, "cidr", value="x"), "subnet in the file"),
        (changed("taken", value="yesterday"), "the file is damaged"),
        (changed("etcd_cluster_id", value="../../x"), "etcd_cluster_id"),
        (changed("revision", value="../x"), "the file is damaged"),
    ],
)
def test_damaged_file_is_refused(text: str, words: str) -> None:
    with pytest.raises(EvioError) as refused:
        decode_backup(text)
    assert words in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = [
    *(("cluster",), ("etcd_cluster_id",), ("revision",), ("taken",), ("pool",), ("claims",), ("released",)),
    *(("pool", "pools"), ("pool", "reserved"), ("pool", "pins"), ("pool", "pools", 0, "node_bits")),
    *(("claims", 0), ("claims", 0, "cidrs"), ("claims", 0, "claimed"), ("claims", 0, "epoch"), ("released", 0)),
]


@given(place=st.sampled_from(PLACES), value=JSON.filter(lambda value: value is not None))
def test_any_value_in_any_place_is_read_or_refused(place: tuple[str | int, ...], value: Any) -> None:
    try:
        backup = decode_backup(changed(*place, value=value))
    except EvioError:
        return
    assert "/" not in backup.file_name
