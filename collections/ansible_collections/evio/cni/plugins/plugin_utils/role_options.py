# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options that the roles of this collection describe in their argument_specs, for checks of an inventory."""

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
