# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""etcd's users and roles, and its authentication: who may read and write which keys.

A client certificate's common name is the name of its user. Users get a random password that nobody knows, because old
versions of etcd know no user without one. As long as authentication is not enabled, etcd lets every client certificate
read and write all keys.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from ..differences import Differences
from ..errors import EvioError
from .client import Etcd, RefusedError, auth_message, prefix_end

ROOT = "root"
"""etcd's own names of the user that must be there before authentication is enabled, and of the role that may do all."""

_READ_AND_WRITE = 2
"""READWRITE of authpb.Permission.Type in etcd's auth.proto."""


class Users:
    """The users of one etcd. ``differences`` collects what was not as wanted; in check mode nothing is changed."""

    def __init__(self, etcd: Etcd, *, check_mode: bool = False) -> None:
        self.differences = Differences()
        self._etcd = etcd
        self._check_mode = check_mode

    def limit(self, user: str, prefix: str) -> None:
        """Let there be a user that may read and write the keys with this prefix, and no others. Raises EvioError.

        Its role has the user's name. Permissions that the role has beyond the prefix are taken away.
        """
        key, end = prefix.encode(), prefix_end(prefix.encode())
        permissions = self._permissions(user)
        wanted = (_READ_AND_WRITE, key, end)
        self.differences.compare(f"role {user}", _words([wanted]), None if permissions is None else _words(permissions))
        if not self._check_mode:
            if permissions is None:
                self._call("RoleAdd", "AuthRoleAddRequest", name=user)
            for _kind, first, last in set(permissions or ()) - {wanted}:
                self._call(
                    "RoleRevokePermission", "AuthRoleRevokePermissionRequest", role=user, key=first, range_end=last
                )
            if wanted not in (permissions or ()):
                request = auth_message("AuthRoleGrantPermissionRequest", name=user)
                request.perm.permType, request.perm.key, request.perm.range_end = wanted
                self._etcd.authentication("RoleGrantPermission", request)
        self._have_user(user, user)

    def administer(self, users: Sequence[str]) -> None:
        """Let these users be there, and may they do all that etcd can do. Raises EvioError."""
        if self._permissions(ROOT) is None and not self._check_mode:
            self._call("RoleAdd", "AuthRoleAddRequest", name=ROOT)
        for user in users:
            self._have_user(user, ROOT)

    def is_enforced(self) -> bool:
        """Return whether authentication is enabled. Raises EvioError."""
        try:
            self._call("Authenticate", "AuthenticateRequest", name="", password="")
        except RefusedError as refusal:
            if "not enabled" in str(refusal):
                return False
            raise
        except EvioError as error:
            if "authentication failed" in str(error) or "user name is empty" in str(error):
                return True
            raise
        return True

    def enforce(self) -> None:
        """Enable authentication, for which the user ``root`` must be there. Raises EvioError."""
        found = self.is_enforced()
        self.differences.compare("authentication", "enabled", "enabled" if found else "disabled")
        if not found and not self._check_mode:
            self._call("AuthEnable", "AuthEnableRequest")

    def _have_user(self, user: str, role: str) -> None:
        roles = self._roles(user)
        self.differences.compare(f"user {user}", [role], roles)
        if self._check_mode:
            return
        if roles is None:
            self._call("UserAdd", "AuthUserAddRequest", name=user, password=secrets.token_urlsafe(32))
        if role not in (roles or ()):
            self._call("UserGrantRole", "AuthUserGrantRoleRequest", user=user, role=role)
        for other in set(roles or ()) - {role}:
            self._call("UserRevokeRole", "AuthUserRevokeRoleRequest", name=user, role=other)

    def _roles(self, user: str) -> list[str] | None:
        """Return the roles of a user; None if there is no such user."""
        try:
            return list(self._etcd.authentication("UserGet", auth_message("AuthUserGetRequest", name=user)).roles)
        except RefusedError:
            return None

    def _permissions(self, role: str) -> list[tuple[int, bytes, bytes]] | None:
        """Return the permissions of a role: kind, first key and end of a range; None if there is no such role."""
        try:
            answer = self._etcd.authentication("RoleGet", auth_message("AuthRoleGetRequest", role=role))
        except RefusedError:
            return None
        return [(permission.permType, permission.key, permission.range_end) for permission in answer.perm]

    def _call(self, method: str, kind: str, **fields: object) -> None:
        self._etcd.authentication(method, auth_message(kind, **fields))


def _words(permissions: Sequence[tuple[int, bytes, bytes]]) -> list[str]:
    kinds = ("read", "write", "read and write")
    return [f"{kinds[kind]} {first.decode()} to {last.decode()}" for kind, first, last in permissions]
