# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a module is told to reach etcd, documented in the same words for each."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
requirements:
  - python3-etcd3
options:
  endpoints:
    description: URLs of etcd's members.
    type: list
    elements: str
    default: [https://127.0.0.1:2379]
  ca_cert:
    description: The certificate that vouches for etcd's.
    type: path
    default: /etc/kubernetes/pki/etcd/ca.crt
  client_cert:
    description: The certificate shown to etcd; empty for none.
    type: path
    default: /etc/kubernetes/pki/apiserver-etcd-client.crt
  client_key:
    description: Its key.
    type: path
    default: /etc/kubernetes/pki/apiserver-etcd-client.key
  user:
    description: Name of an etcd user, where etcd asks for one.
    type: str
  password:
    description: The user's password.
    type: str
  timeout:
    description: Seconds that one call to one member may take.
    type: float
    default: 5.0
"""
