# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A text file that a module keeps: compare it with what is wanted, show the difference, write or remove the file.

What the file says is left to the caller, and how a file is written in one step to atomic_file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic_file import make_directories, read_file, remove_file, write_atomic
from .differences import Differences
from .errors import EvioError

CONTENT = "content"
"""Name of the difference between the wanted text and the found text."""


class ManagedFileError(EvioError):
    """A file cannot be read, written or removed; the message names the file and the reason."""


class ManagedFile:
    """One file: its text and attributes as found when this object was made, and the attributes that it shall have.

    ``mode`` is the permission bits; ``uid`` and ``gid`` may be None, then the owner is not compared. ``directory_mode``
    is the mode of the file's directory where that has to be made. ``show`` returns what a diff may show of a text.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mode: int,
        uid: int | None = None,
        gid: int | None = None,
        directory_mode: int = 0o755,
        show: Callable[[str], str] = str,
    ) -> None:
        """Read the file. Raises ManagedFileError if it is there and cannot be read."""
        self.path = Path(path)
        self.wanted = _attributes(mode, uid, gid)
        self.mode, self.uid, self.gid = mode, uid, gid
        self.directory_mode = directory_mode
        self.show = show
        try:
            found = read_file(self.path)
            self.text = found[0].decode("utf-8") if found is not None else None
            status = found[1] if found is not None else None
        except (OSError, UnicodeDecodeError) as error:
            raise ManagedFileError(f"cannot read {self.path}: {error}") from error
        self.found = _attributes(status.st_mode & 0o7777, status.st_uid, status.st_gid) if status else {}

    def change_to(self, text: str | None) -> FileChange:
        """Return the change that gives the file this text and the wanted attributes; None removes the file."""
        differences = Differences()
        differences.compare(CONTENT, text, self.text)
        if text is not None and self.text is not None:
            for name, value in self.wanted.items():
                differences.compare(name, value, self.found[name])
        return FileChange(self, text, differences)


@dataclass(frozen=True)
class FileChange:
    """What has to be done to a file, if anything."""

    file: ManagedFile
    text: str | None
    """The wanted text; None for no file."""
    differences: Differences

    @property
    def changed(self) -> bool:
        """Whether anything has to be done."""
        return self.differences.changed

    def diff(self) -> list[dict[str, Any]]:
        """Return Ansible's diffs: one of the text and one of the attributes, each only if something differs."""
        path = str(self.file.path)
        headers = {"before_header": path, "after_header": path}
        diffs: list[dict[str, Any]] = []
        if CONTENT in self.differences:
            before, after = self._shown(self.file.text), self._shown(self.text)
            diffs.append({**headers, "before": before, "after": after})
        attributes = [difference for difference in self.differences if difference.name != CONTENT]
        if attributes:
            before_attributes = {difference.name: difference.found for difference in attributes}
            after_attributes = {difference.name: difference.wanted for difference in attributes}
            diffs.append({**headers, "before": before_attributes, "after": after_attributes})
        return diffs

    def apply(self) -> None:
        """Write or remove the file if anything differs. Raises ManagedFileError."""
        if not self.changed:
            return
        file = self.file
        try:
            if self.text is None:
                remove_file(file.path)
            else:
                make_directories(file.path.parent, file.directory_mode)
                write_atomic(file.path, self.text, mode=file.mode, uid=file.uid, gid=file.gid)
        except OSError as error:
            verb = "remove" if self.text is None else "write"
            raise ManagedFileError(f"cannot {verb} {file.path}: {error.strerror}") from error

    def _shown(self, text: str | None) -> str:
        return self.file.show(text) if text is not None else ""


def result_of(*parts: FileChange | Differences) -> dict[str, Any]:
    """Return ``changed`` and ``diff``, a list, of a module that keeps several things."""
    diffs: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, FileChange):
            diffs += part.diff()
        elif part.changed:
            diffs.append(part.diff())
    return {"changed": any(part.changed for part in parts), "diff": diffs}


def _attributes(mode: int, uid: int | None, gid: int | None) -> dict[str, str]:
    """Return the attributes that are given, as a diff shows them."""
    owners = {"uid": uid, "gid": gid}
    return {"mode": f"{mode:04o}", **{name: str(value) for name, value in owners.items() if value is not None}}
