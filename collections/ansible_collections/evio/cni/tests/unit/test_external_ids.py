# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The external_ids of pods' ports: installed nodes have them in their databases, so they must not change."""

from __future__ import annotations

from ansible_collections.evio.cni.plugins.module_utils.cni.attachment import Attachment
from ansible_collections.evio.cni.plugins.module_utils.ovs.external_ids import address_ids, external_ids


def test_new_port_says_which_attachment_it_belongs_to() -> None:
    assert external_ids(Attachment("evio", "0a1b", "eth0"), "0a:58:0a:f4:03:07") == {
        "evio-owner": "evio.cni",
        "evio-container": "0a1b",
        "evio-ifname": "eth0",
        "evio-network": "evio",
        "iface-id": "0a1b:eth0",
        "attached-mac": "0a:58:0a:f4:03:07",
    }


def test_addresses_are_listed_without_prefix_lengths() -> None:
    assert address_ids(["10.244.3.7/24", "fd00:10:244:3::7/64"]) == {"evio-ip": "10.244.3.7,fd00:10:244:3::7"}
