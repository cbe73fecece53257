# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The base class of all errors that the library raises on purpose.

A module's ``fail_json``, the plugin's error object and a program's last line show the message as it is. So a message
says what was wanted, what was found and what to do.
"""

from __future__ import annotations


class EvioError(Exception):
    """A failure whose message is meant for the user."""


class NothingBegunError(EvioError):
    """A service that is needed could not be reached. It was asked for nothing yet, so there is nothing to undo."""
