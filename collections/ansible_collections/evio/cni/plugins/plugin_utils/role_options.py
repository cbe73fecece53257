# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the roles of this collection read and install, from their files, for checks of an inventory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_ROLES = Path(__file__).resolve().parents[2] / "roles"

# libyaml's loader takes 10 ms for all roles, Python's 100.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def role_options() -> dict[str, dict[str, Any]]:
    """Return the description of each option of each role, by its name. Roles that share an option describe it alike."""
    return {
        name: option
        for path in sorted(_ROLES.glob("*/meta/argument_specs.yml"))
        for entry in yaml.load(path.read_bytes(), Loader=_LOADER)["argument_specs"].values()
        for name, option in (entry.get("options") or {}).items()
    }


def installed_packages() -> list[str]:
    """Return the Debian packages that the roles install on hosts, unless the inventory lists others."""
    prerequisites = yaml.load((_ROLES / "prerequisites/defaults/main.yml").read_bytes(), Loader=_LOADER)
    lists = [value for value in prerequisites.values() if isinstance(value, list)]
    lists.append(yaml.load((_ROLES / "xmpp/vars/main.yml").read_bytes(), Loader=_LOADER)["__evio_signalling_packages"])
    return [name for packages in lists for name in packages]
