# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options by which a module is told how to reach etcd, in one place; the doc fragment ``etcd`` documents them.

What is done with the access is the subject of etcd.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .client import Access

ETCD_OPTIONS: dict[str, dict[str, Any]] = {
    "endpoints": {"type": "list", "elements": "str", "default": ["https://127.0.0.1:2379"]},
    "ca_cert": {"type": "path", "default": "/etc/kubernetes/pki/etcd/ca.crt"},
    "client_cert": {"type": "path", "default": "/etc/kubernetes/pki/apiserver-etcd-client.crt"},
    "client_key": {"type": "path", "default": "/etc/kubernetes/pki/apiserver-etcd-client.key", "no_log": False},
    "user": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "timeout": {"type": "float", "default": 5.0},
}


def access_of(params: Mapping[str, Any]) -> Access:
    """What a module's parameters say."""
    return Access(
        endpoints=tuple(params["endpoints"]),
        ca_cert=params["ca_cert"] or None,
        client_cert=params["client_cert"] or None,
        client_key=params["client_key"] or None,
        user=params["user"],
        password=params["password"],
        timeout=params["timeout"],
    )
