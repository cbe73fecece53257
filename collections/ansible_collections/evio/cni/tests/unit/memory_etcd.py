# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An etcd in memory for unit tests: revisions, conditions, ranges, and the limit on operations of a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ansible_collections.evio.cni.plugins.module_utils.etcd.client import (
    MAX_TXN_OPS,
    Compare,
    Condition,
    Delete,
    Get,
    KeyValue,
    Operation,
    Put,
    TxnResult,
)


class MemoryEtcd:
    """One key space. ``calls`` is the number of transactions."""

    def __init__(self) -> None:
        self.pairs: dict[str, KeyValue] = {}
        self.revision = 1
        self.calls = 0

    def txn(
        self, compare: Sequence[Condition], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        self.calls += 1
        for one in (compare, success, failure):
            assert len(one) <= MAX_TXN_OPS, "etcdserver: too many operations in txn request"
        succeeded = all(self._holds(condition) for condition in compare)
        branch = success if succeeded else failure
        written = [operation.key for operation in branch if isinstance(operation, Put)]
        assert len(written) == len(set(written)), "etcdserver: duplicate key given in txn request"
        if any(isinstance(operation, (Put, Delete)) for operation in branch):
            self.revision += 1
        ranges = [found for operation in branch for found in self._do(operation)]
        shown = tuple(() if get.count_only else tuple(_show(pair, get) for pair in found) for get, found in ranges)
        return TxnResult(succeeded, self.revision, shown, tuple(len(found) for _get, found in ranges))

    def _holds(self, condition: Condition) -> bool:
        if isinstance(condition, Compare):
            pair = self.pairs.get(condition.key)
            found = (pair.mod_revision if condition.kind == "mod" else pair.create_revision) if pair else 0
            return found == condition.revision
        return all(
            pair.mod_revision <= condition.revision
            for key, pair in self.pairs.items()
            if key.startswith(condition.prefix)
        )

    def _do(self, operation: Operation) -> Iterator[tuple[Get, list[KeyValue]]]:
        if isinstance(operation, Get):
            yield operation, [self.pairs[key] for key in sorted(self.pairs) if self._is_asked_for(key, operation)]
        elif isinstance(operation, Put):
            before = self.pairs.get(operation.key)
            created = before.create_revision if before else self.revision
            self.pairs[operation.key] = KeyValue(operation.key, operation.value, created, self.revision)
        else:
            self.pairs.pop(operation.key, None)

    @staticmethod
    def _is_asked_for(key: str, get: Get) -> bool:
        if get.prefix:
            return key.startswith(get.key)
        return get.key <= key < get.end if get.end else key == get.key


def _show(pair: KeyValue, get: Get) -> KeyValue:
    return replace(pair, value="") if get.keys_only else pair
