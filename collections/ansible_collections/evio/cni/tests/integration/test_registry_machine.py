# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Any sequence of operations on the registry in a real etcd, with the state machine of the unit test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils.etcd.client import Delete, Etcd, Get
from ansible_collections.evio.cni.tests.unit.registry_machine import RegistryMachine
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from .etcd_server import EtcdServer

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    server = EtcdServer(tmp_path_factory.mktemp("etcd"), tls=False)
    try:
        with Etcd(server.start().access) as connection:
            yield connection
    finally:
        server.stop()


def test_registry_and_model_agree_after_any_sequence_of_operations(etcd: Etcd) -> None:
    clusters = itertools.count()

    class InEtcd(RegistryMachine):
        def connect(self) -> tuple[Any, str]:
            for pair in etcd.txn([], [Get("/evpn/", prefix=True)]).ranges[0]:
                etcd.txn([], [Delete(pair.key)])
            return etcd, f"cluster{next(clusters)}"

    run_state_machine_as_test(
        InEtcd,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
