# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which certificates there are, and the names of their files. Pure; pki issues them, and needs cryptography for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Leaf:
    """A certificate that the CA signs."""

    path: str
    """Of certificate and key, below the PKI directory and without the suffix."""
    common_name: str
    """Empty for the name of the member."""
    organization: str | None
    server: bool
    """Whether it is a server's: it has the member's names and addresses. A client can use every certificate."""


@dataclass(frozen=True)
class Layout:
    """A CA and the certificates that it signs."""

    ca: str
    """Path below the PKI directory, without the suffix."""
    ca_name: str
    """Common name."""
    leaves: tuple[Leaf, ...]


ETCD = Layout(
    "etcd/ca",
    "etcd-ca",
    (
        Leaf("etcd/server", "", None, True),
        Leaf("etcd/peer", "", None, True),
        Leaf("etcd/healthcheck-client", "kube-etcd-healthcheck-client", "system:masters", False),
        Leaf("apiserver-etcd-client", "kube-apiserver-etcd-client", "system:masters", False),
    ),
)
"""kubeadm's own names."""

XMPP = Layout("ca", "evio-xmpp-ca", (Leaf("server", "", None, True),))


_CLIENT_SUFFIX = "-etcd-client"


def client_layout(user: str) -> Layout:
    """Return the layout with the client certificate of one etcd user, whose name is the common name."""
    return Layout(ETCD.ca, ETCD.ca_name, (Leaf(f"{user}{_CLIENT_SUFFIX}", user, None, False),))


def is_of_etcd_user(path: str) -> bool:
    """Return whether a path below the PKI directory, without the suffix, is that of an etcd user's certificate."""
    return path.endswith(_CLIENT_SUFFIX) and not is_of_etcd(path)


def is_of_etcd(path: str) -> bool:
    """Return whether a path below the PKI directory, without the suffix, is in the layout of etcd."""
    return path in (ETCD.ca, *(leaf.path for leaf in ETCD.leaves))
