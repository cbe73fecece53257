# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one base of all errors the library raises on purpose.

Rooms derive their own from it; a module's ``fail_json``, the plugin's error object and a program's last line catch
this class and print its text as it is, so the text says what was wanted, what was found and what to do.
"""

from __future__ import annotations


class EvioError(Exception):
    """A failure whose message is meant for the user."""


class NothingBegunError(EvioError):
    """What is needed first is not there: nothing has been asked of it yet, and nothing of that need be undone."""
