# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ``attributes`` that every module of this collection documents in the same words."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of check mode, diff mode and idempotence."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: In C(check_mode), reports what it would change and changes nothing.
  diff_mode:
    description: In diff mode, shows what has changed or, in C(check_mode), what would change.
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second run changes nothing.
"""
