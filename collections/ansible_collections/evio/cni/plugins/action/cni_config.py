# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action plugin of the module cni_config: makes the content of files of templates."""

from __future__ import annotations

from ..plugin_utils.unit_files import UnitFilesAction


class ActionModule(UnitFilesAction):
    """Run the module."""
