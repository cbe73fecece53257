#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module that limits an etcd user to the claims of one cluster; etcd/users does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_user
short_description: Limit an etcd user to the keys of a cluster's node subnets
version_added: 0.1.0
description:
  - Keeps an etcd user, and a role of its name that may read and write the keys below C(/evio/CLUSTER/) only. A client
    certificate whose common name is the user's name has these rights; see M(evio.cni.etcd_client_certificate).
  - etcd enforces this only if its authentication is enabled. Then it also refuses all clients that have no user, so
    each of the O(administrators) gets a user that may do everything.
  - Users get random passwords, which are not kept. They log in by their certificates.
author:
  - The evio.cni authors (@evio-cni)
extends_documentation_fragment:
  - evio.cni.attributes
  - evio.cni.etcd
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - python3-etcd3
  - python3-cryptography
options:
  name:
    description: The user's name, and the name of its role.
    type: str
    default: evio-cni
  cluster:
    description: The name of the cluster, a part of its keys in etcd.
    type: str
    default: kubernetes
  enable_authentication:
    description:
      - Enable etcd's authentication. Every client that is not listed in O(administrators) is then refused.
      - It is enabled only if the common name of O(client_cert) is among the administrators.
    type: bool
    default: false
  administrators:
    description:
      - Common names of the client certificates that may do everything in etcd. By default those that kubeadm issues for
        the API server, and for itself and etcd's health checks.
    type: list
    elements: str
    default: [kube-apiserver-etcd-client, kube-etcd-healthcheck-client]
"""

EXAMPLES = r"""
- name: Limit the certificate of the DaemonSet to the node subnets, in kubeadm's etcd
  evio.cni.etcd_user:
    enable_authentication: true
"""

RETURN = r"""
enforced:
  description: Whether etcd's authentication is enabled. If not, every client certificate may read and write all keys.
  returned: success
  type: bool
prefix:
  description: The beginning of the keys that the user may read and write.
  returned: success
  type: str
  sample: /evio/kubernetes/
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.claims.schema import Keys
from ..module_utils.defaults import CLUSTER
from ..module_utils.errors import EvioError
from ..module_utils.etcd.client import Etcd
from ..module_utils.etcd.options import ETCD_OPTIONS, access_of
from ..module_utils.etcd.users import ROOT, Users
from ..module_utils.module_runner import Module, run_module
from ..module_utils.pki import common_name


class EtcdUser:
    """One run: compare roles and users with what is wanted, and change them unless in check mode."""

    def __init__(self, module: Module) -> None:
        self.params = module.params
        self.check_mode = module.check_mode
        self.prefix = Keys(self.params["cluster"]).prefix
        self.administrators: list[str] = self.params["administrators"]
        if self.params["name"] in (ROOT, *self.administrators):
            raise EvioError(f"name: {self.params['name']!r} is an administrator and cannot be limited")

    def run(self) -> dict[str, Any]:
        if self.params["enable_authentication"]:
            self._refuse_to_lock_out_ourselves()
        with Etcd(access_of(self.params)) as etcd:
            users = Users(etcd, check_mode=self.check_mode)
            users.limit(self.params["name"], self.prefix)
            if self.params["enable_authentication"]:
                users.administer([ROOT, *self.administrators])
                users.enforce()
            enforced = self.params["enable_authentication"] or users.is_enforced()
        return {**users.differences.result(), "enforced": enforced, "prefix": self.prefix}

    def _refuse_to_lock_out_ourselves(self) -> None:
        certificate = self.params["client_cert"]
        if not certificate:
            raise EvioError("enable_authentication needs client_cert: etcd takes a user's name from its certificate")
        name = common_name(certificate)
        if name not in (ROOT, *self.administrators):
            raise EvioError(
                f"{certificate} is the certificate of {name!r}, which is not among the administrators "
                f"({', '.join(self.administrators)}): etcd would refuse it from now on; nothing was changed"
            )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ETCD_OPTIONS,
            "name": {"type": "str", "default": "evio-cni"},
            "cluster": {"type": "str", "default": CLUSTER},
            "enable_authentication": {"type": "bool", "default": False},
            "administrators": {
                "type": "list",
                "elements": "str",
                "default": ["kube-apiserver-etcd-client", "kube-etcd-healthcheck-client"],
            },
        },
        supports_check_mode=True,
    )
    run_module(module, EtcdUser)


if __name__ == "__main__":
    main()
