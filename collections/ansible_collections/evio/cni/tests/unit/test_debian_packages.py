# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was installed is noted, so that nothing else is removed: against a double of apt and dpkg that keeps a list."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils import debian_packages
from ansible_collections.evio.cni.plugins.module_utils.debian_packages import (
    Host,
    Note,
    PackagesError,
    Removal,
    after_removal,
    begin_installation,
    end_installation,
    plan_removal,
    read_note,
    remove,
    write_note,
)

NEEDS = {"etcd-server": {"libpam"}, "tool-of-others": {"etcd-server"}, "switch": {"libswitch"}}
"""Packages, each with those that it depends on."""


class AptDouble:
    """Installed packages, those among them that apt has installed by itself, and the host's accounts."""

    def __init__(self) -> None:
        self.installed = {"bash", "libc6"}
        self.automatic: set[str] = {"libc6"}
        self.accounts = {"user:root", "group:root"}

    def install(self, *names: str) -> None:
        for name in names:
            self.installed |= {name} | NEEDS.get(name, set())
            self.automatic |= NEEDS.get(name, set())

    def removed_with(self, names: list[str]) -> set[str]:
        gone = set(names)
        while more := {name for name in self.installed - gone if NEEDS.get(name, set()) & gone}:
            gone |= more
        return gone

    def run(self, command: list[str], seconds: float = 0) -> str:
        if command[0] == "apt-mark":
            return "\n".join(self.automatic)
        if command[:3] == ["apt-get", "--simulate", "purge"]:
            return "".join(f"Purg {name} [1]\n" for name in self.removed_with(command[4:]))
        if "purge" in command:
            self.installed -= self.removed_with(command[command.index("--") + 1 :])
        else:
            self.accounts.discard({"userdel": "user:", "groupdel": "group:"}[command[0]] + command[-1])
        return ""


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> AptDouble:
    double = AptDouble()
    monkeypatch.setattr(debian_packages, "_run", double.run)
    monkeypatch.setattr(
        debian_packages, "read_host", lambda: Host(frozenset(double.installed), frozenset(double.accounts))
    )
    monkeypatch.setattr(debian_packages, "_is_there", lambda account: account in double.accounts)
    scripts = {"etcd-server": [b"adduser --system --group etcd"], "switch": [b"systemctl enable switch-etcd"]}
    monkeypatch.setattr(debian_packages, "_scripts", lambda package: scripts.get(package, []))
    return double


def installed(apt: AptDouble, *names: str) -> Note:
    """Return the note after an installation of these packages."""
    note = begin_installation(Note())
    apt.install(*names)
    apt.accounts |= {"user:etcd", "group:etcd"} if "etcd-server" in names else set()
    return end_installation(note, names)


def test_what_is_new_is_noted_with_its_dependencies_and_accounts(apt: AptDouble) -> None:
    apt.install("switch")
    note = installed(apt, "etcd-server", "switch")
    assert note.packages == {"etcd-server", "libpam"}
    assert note.accounts == {"user:etcd": ("etcd-server",), "group:etcd": ("etcd-server",)}


def test_everything_that_was_installed_is_removed_and_nothing_else(apt: AptDouble) -> None:
    before = (set(apt.installed), set(apt.accounts))
    note = installed(apt, "etcd-server", "switch")
    assert note.accounts["user:etcd"] == ("etcd-server",), "switch names another service, switch-etcd"
    removal = plan_removal(note, [])
    remove(removal)
    assert (apt.installed, apt.accounts) == before
    assert after_removal(note, removal) == Note()
    assert plan_removal(Note(), []) == Removal((), (), {})


def test_packages_of_a_run_that_was_interrupted_are_found_and_those_of_a_person_are_not(apt: AptDouble) -> None:
    note = begin_installation(Note())
    apt.install("etcd-server")
    apt.install("editor")
    assert begin_installation(note) == note
    assert end_installation(note, ["etcd-server"]).packages == {"etcd-server", "libpam"}


def test_package_that_others_need_by_now_stays_with_what_it_needs(apt: AptDouble) -> None:
    note = installed(apt, "etcd-server", "switch")
    apt.install("tool-of-others")
    removal = plan_removal(note, [])
    assert removal.packages == ("libswitch", "switch")
    assert removal.needed == {"etcd-server": ("tool-of-others",), "libpam": ("tool-of-others",)}
    assert removal.accounts == ()
    remove(removal)
    assert after_removal(note, removal).packages == {"etcd-server", "libpam"}


def test_package_that_is_to_be_kept_stays_with_what_it_needs(apt: AptDouble) -> None:
    note = installed(apt, "etcd-server", "switch")
    removal = plan_removal(note, ["etcd-server"])
    assert removal.packages == ("libswitch", "switch")
    assert removal.accounts == ()


def test_package_that_somebody_has_removed_meanwhile_is_forgotten(apt: AptDouble) -> None:
    note = installed(apt, "switch")
    apt.installed -= {"switch", "libswitch"}
    removal = plan_removal(note, [])
    assert removal.packages == ()
    assert after_removal(note, removal) == Note()


def test_note_is_written_read_and_removed_when_it_is_empty(tmp_path: Path, apt: AptDouble) -> None:
    path = tmp_path / "note.json"
    assert read_note(str(path)) == Note()
    for note in (begin_installation(Note()), installed(apt, "etcd-server")):
        write_note(str(path), note)
        assert read_note(str(path)) == note
    write_note(str(path), Note())
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 1}', '{"version": 9}', '{"version": 1, "packages": 7}'])
def test_note_that_cannot_be_read_is_refused_and_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "note.json"
    path.write_text(text)
    with pytest.raises(PackagesError, match=str(path)):
        read_note(str(path))
