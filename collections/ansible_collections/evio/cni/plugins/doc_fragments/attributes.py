# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ``attributes`` block that every module of this collection documents in the same words."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Foretells in C(check_mode) what it would change, and changes nothing.
  diff_mode:
    description: Shows in diff mode what has changed, or in C(check_mode) what would.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second run changes nothing.
"""
