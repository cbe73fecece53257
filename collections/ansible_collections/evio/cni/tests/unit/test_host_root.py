# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host's files below another root: links lead to where the host would find their targets."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.host_root import resolve


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("opt/cni/bin/portmap", "/usr/lib/cni/portmap"),
        ("opt/cni/bin/portmap", "../../../usr/lib/cni/portmap"),
        ("opt/cni/bin", "/usr/lib/cni"),
        ("opt/cni", "/../../usr/lib/cni/none/.."),
    ],
)
def test_link_is_followed_below_the_root(tmp_path: Path, link: str, target: str) -> None:
    (tmp_path / link).parent.mkdir(parents=True)
    (tmp_path / link).symlink_to(target)
    found = resolve(str(tmp_path), "/opt/cni/bin/portmap" if link != "opt/cni" else "/opt/cni")
    wanted = "usr/lib/cni" if link == "opt/cni" else "usr/lib/cni/portmap"
    assert found == str(tmp_path / wanted)


def test_path_without_links_is_below_the_root_also_if_nothing_is_there(tmp_path: Path) -> None:
    assert resolve(str(tmp_path), "/usr/lib") == f"{tmp_path}/usr/lib"
    assert resolve("/", "/nowhere/at/all") == "/nowhere/at/all"


def test_circle_of_links_leads_to_no_file(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("/two")
    (tmp_path / "two").symlink_to("one")
    assert not Path(resolve(str(tmp_path), "/one")).is_file()
