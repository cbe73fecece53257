# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options by which modules and programs are told how to reach etcd; the doc fragment ``etcd`` documents them.

``access`` checks the values and uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .access import Access

ETCD_OPTIONS: dict[str, dict[str, Any]] = {
    "endpoints": {"type": "list", "elements": "str", "default": ["https://127.0.0.1:2379"]},
    "ca_cert": {"type": "path", "default": "/etc/kubernetes/pki/etcd/ca.crt"},
    "client_cert": {"type": "path", "default": "/etc/kubernetes/pki/apiserver-etcd-client.crt"},
    "client_key": {"type": "path", "default": "/etc/kubernetes/pki/apiserver-etcd-client.key", "no_log": False},
    "user": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "timeout": {"type": "float", "default": Access.timeout},
}
"""Of a module's argument_spec."""


def access_of(params: Mapping[str, Any]) -> Access:
    """Return the access that a module's parameters describe."""
    return build_access(**{name: params[name] for name in ETCD_OPTIONS})


def build_access(
    endpoints: str | Sequence[str],
    *,
    ca_cert: str | None = None,
    client_cert: str | None = None,
    client_key: str | None = None,
    user: str | None = None,
    password: str | None = None,
    timeout: float = Access.timeout,
) -> Access:
    """Return the access that these options describe. An empty string counts as not given.

    ``endpoints`` are URLs, separated by commas if they come in one string; ``timeout`` is in seconds.
    """
    urls = endpoints.split(",") if isinstance(endpoints, str) else endpoints
    return Access(
        endpoints=tuple(url.strip() for url in urls if url.strip()),
        ca_cert=ca_cert or None,
        client_cert=client_cert or None,
        client_key=client_key or None,
        user=user or None,
        password=password or None,
        timeout=timeout,
    )
