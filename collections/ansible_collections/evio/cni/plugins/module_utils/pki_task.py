# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The work that the modules etcd_pki and xmpp_pki share: issue the certificates of a layout that are missing or old.

Which files there are and when one is issued anew is left to pki.
"""

from __future__ import annotations

import grp
from collections.abc import Sequence
from typing import Any

from .differences import Differences
from .module_runner import Module
from .pki import PkiError, adopt, adoptable, have_same_ca, issue, outdated
from .pki_layout import Layout


class PkiTask:
    """One run: find the certificates that have to be issued, and issue them unless in check mode."""

    def __init__(self, module: Module, layout: Layout, name: str, alternative_names: Sequence[str]) -> None:
        """``name`` is the server's own; it can also be reached under the alternative names, addresses among them."""
        self.module = module
        self.layout = layout
        self.name = name
        self.alternative_names = alternative_names
        self.directory: str = module.params["directory"]
        self.renewal = {name: module.params[name] for name in ("renew_days", "renew_all")}
        self.adopted: str | None = module.params.get("adopted_directory")

    def run(self) -> dict[str, Any]:
        """Return ``issued``, the paths below the directory without suffix, with ``changed`` and ``diff``."""
        differences = Differences()
        found = self._adopt(differences) if self.adopted else self.directory
        stale = self._issue(found, differences)
        if self.adopted and found == self.directory and have_same_ca(self.adopted, self.directory, self.layout):
            # Whoever was told to read certificates there goes on to find valid ones.
            self._issue(self.adopted, differences)
        return {**differences.result(), "issued": stale}

    def _adopt(self, differences: Differences) -> str:
        """Take over the certificates of an earlier installation, and return the directory where they are now."""
        source = str(self.adopted)
        found = adoptable(source, self.directory, self.layout)
        for path in found:
            differences.compare(path, f"copied from {source}", None)
        if found and self.module.check_mode:
            return source
        if found:
            adopt(source, self.directory, self.layout, key_group=_group_id(self.module.params["group"]))
        return self.directory

    def _issue(self, directory: str, differences: Differences) -> list[str]:
        certificate = (directory, self.name, self.alternative_names, self.layout)
        stale = outdated(*certificate, **self.renewal)
        for path in stale:
            differences.compare(path if directory == self.directory else f"{directory}/{path}", "issued", None)
        if stale and not self.module.check_mode:
            key_group = _group_id(self.module.params.get("group"))
            issue(*certificate, key_group=key_group, **self.renewal)
        return stale


def _group_id(name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise PkiError(
            f"group: {name!r} is no group of this host; install the package of the server first, which makes the group"
        ) from None
