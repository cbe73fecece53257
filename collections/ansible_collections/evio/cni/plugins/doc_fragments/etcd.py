# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The options of every module that talks to etcd. Their argument_spec is in module_utils/etcd/options.py."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation of how a module reaches etcd."""

    DOCUMENTATION = r"""
options:
  endpoints:
    description: URLs of etcd's members.
    type: list
    elements: str
    default: [https://127.0.0.1:2379]
  ca_cert:
    description: Certificate of the CA that has signed the certificates of etcd's members.
    type: path
    default: /etc/kubernetes/pki/etcd/ca.crt
  client_cert:
    description: Certificate by which the module authenticates to etcd. Empty if etcd asks for none.
    type: path
    default: /etc/kubernetes/pki/apiserver-etcd-client.crt
  client_key:
    description: Private key of O(client_cert).
    type: path
    default: /etc/kubernetes/pki/apiserver-etcd-client.key
  user:
    description: Name of an etcd user, if etcd's authentication is enabled.
    type: str
  password:
    description: Password of O(user).
    type: str
  timeout:
    description: Seconds that one call to one member may take.
    type: float
    default: 5.0
attributes:
  action_group:
    description: Use C(group/evio.cni.etcd) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - evio.cni.etcd
"""
