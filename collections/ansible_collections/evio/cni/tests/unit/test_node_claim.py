# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A node's own claim is read from its conflist, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.claims.model import ClaimError, LocalClaim
from ansible_collections.evio.cni.plugins.module_utils.cni.conf_dir import write_conflist
from ansible_collections.evio.cni.plugins.module_utils.cni.conflist import PodNetwork, build_conflist
from ansible_collections.evio.cni.plugins.module_utils.node.claim import read_local_claim, read_machine_id
from ansible_collections.evio.cni.plugins.module_utils.subnets import NodeSubnet


@pytest.mark.parametrize("cidrs", [("10.244.3.0/24",), ("10.244.3.0/24", "fd00:10:244:3::/64")])
def test_claim_is_read_from_the_conflist_that_was_written_from_it(tmp_path: Path, cidrs: tuple[str, ...]) -> None:
    network = PodNetwork("br-evio", tuple(NodeSubnet(cidr) for cidr in cidrs), (), 1420, epoch=17)
    write_conflist(build_conflist(network), str(tmp_path))
    assert read_local_claim(str(tmp_path)) == LocalClaim(cidrs, 17)


def test_node_that_is_not_set_up_has_no_claim(tmp_path: Path) -> None:
    assert read_local_claim(str(tmp_path)) is None
    assert read_local_claim(str(tmp_path / "nowhere")) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"plugins": [{"type": "bridge"}]}', '{"plugins": [{"type": "evio"}]}']
)
def test_conflist_without_a_subnet_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "10-evio.conflist").write_text(text)
    with pytest.raises(ClaimError, match=r"10-evio\.conflist does not tell which subnets this node has"):
        read_local_claim(str(tmp_path))


def test_machine_without_an_id_is_refused(tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("\n")
    with pytest.raises(ClaimError, match="is empty"):
        read_machine_id(str(tmp_path / "machine-id"))
    with pytest.raises(ClaimError, match="mount the host's /etc/machine-id"):
        read_machine_id(str(tmp_path / "nowhere"))
