"""The changelog names the plugins and modules that the collection has, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

COLLECTION = Path(__file__).resolve().parents[2] / "collections/ansible_collections/evio/cni"
KINDS = ("modules", "filter", "vars", "callback")
"""The directories of plugins that are documented. An action plugin has the documentation of its module."""
RELEASES: dict[str, Any] = yaml.safe_load((COLLECTION / "changelogs/changelog.yaml").read_text())["releases"]


def listed(kind: str) -> set[str]:
    """Return the names that all releases together have as new."""
    lists = [
        release.get("modules", []) if kind == "modules" else release.get("plugins", {}).get(kind, [])
        for release in RELEASES.values()
    ]
    return {plugin["name"] for plugins in lists for plugin in plugins}


@pytest.mark.parametrize("kind", KINDS)
def test_new_plugins_of_the_changelog_are_those_of_the_collection(kind: str) -> None:
    there = {path.stem for path in (COLLECTION / "plugins" / kind).glob("*.py")} - {"__init__"}
    assert there
    assert listed(kind) == there


def test_collections_version_has_its_release_notes() -> None:
    version = yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["version"]
    assert version in RELEASES
    notes = (COLLECTION / "CHANGELOG.rst").read_text()
    assert f"\nv{version}\n" in notes
    missing = {name for name in listed("modules") if f"\n- evio.cni.{name} - " not in notes}
    assert not missing


def test_every_kind_of_plugin_is_looked_at() -> None:
    others = {"action", "doc_fragments", "module_utils", "plugin_utils"}
    kinds = {path.parent.name for path in (COLLECTION / "plugins").glob("*/*.py")}
    assert kinds == {*KINDS, *others}
