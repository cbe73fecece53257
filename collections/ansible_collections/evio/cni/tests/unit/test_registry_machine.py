# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Any sequence of operations on the registry, with an etcd in memory; test_registry_machine of integration has etcd."""

from __future__ import annotations

from typing import Any

from ansible_collections.evio.cni.tests.unit.memory_etcd import MemoryEtcd
from ansible_collections.evio.cni.tests.unit.registry_machine import RegistryMachine
from hypothesis import HealthCheck, settings


class InMemory(RegistryMachine):
    def connect(self) -> tuple[Any, str]:
        return MemoryEtcd(), "kubernetes"


InMemory.TestCase.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnySequence = InMemory.TestCase
