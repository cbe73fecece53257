# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host asks of the registry, from what was read on it and from the inventory."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.evio.cni.plugins.filter.subnet_request import subnet_request

HOST = {"inventory_hostname": "edge3", "__evio_host": {"identity": {"machine_id": "3f0d"}, "configured": None}}


def test_host_asks_for_what_it_is_set_up_with() -> None:
    configured = {"cidrs": ["10.244.7.0/24"], "epoch": 4}
    asked = subnet_request({**HOST, "__evio_host": {**HOST["__evio_host"], "configured": configured}})
    assert (asked["name"], asked["machine_id"], asked["configured"]) == ("edge3", "3f0d", configured)


def test_host_that_does_not_answer_asks_for_nothing_of_its_own() -> None:
    asked = subnet_request({"inventory_hostname": "edge3", "__evio_host": {"unreachable": True}})
    assert (asked["machine_id"], asked["configured"]) == ("", None)


def test_host_whose_subnets_cannot_be_read_is_refused_by_its_name() -> None:
    fault = "/etc/cni/net.d/10-evio.conflist does not tell which subnets this node has"
    with pytest.raises(AnsibleFilterError, match=f"edge3: {fault}"):
        subnet_request({**HOST, "__evio_host": {**HOST["__evio_host"], "claim_fault": fault}})
