# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The examples in the READMEs of the collection and of its roles, as the files of a site that Ansible can run."""

from __future__ import annotations

import re
from pathlib import Path

COLLECTION = Path(__file__).resolve().parents[1] / "collections/ansible_collections/evio/cni"
ROLES = sorted(path.name for path in (COLLECTION / "roles").iterdir())
PLAYBOOKS = sorted(f"evio.cni.{path.stem}" for path in (COLLECTION / "playbooks").glob("*.yml"))
"""The collection's playbooks, by the names by which ansible-playbook runs them."""


def write_site(directory: Path) -> None:
    """Write ansible.cfg and the inventory hosts.yml of the collection's README, and ROLE.yml of each role's README."""
    readme = COLLECTION / "README.md"
    (directory / "ansible.cfg").write_text(_block(readme, "ini"))
    (directory / "hosts.yml").write_text(_block(readme, "yaml"))
    for role in ROLES:
        (directory / f"{role}.yml").write_text(_block(COLLECTION / "roles" / role / "README.md", "yaml"))


def _block(readme: Path, language: str) -> str:
    """Return the text of a README's first code block in this language. Raises ValueError if it has none."""
    found = re.search(rf"(?ms)^```{language}\n(.*?)^```$", readme.read_text())
    if found is None:
        raise ValueError(f"{readme} has no example in {language}")
    return found[1]
