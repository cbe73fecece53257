# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""etcd's transactions, with a deadline and against any of several members. This file hides the library etcd3.

``access`` has the members' addresses and TLS; what is stored in etcd is up to ``claims``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import EvioError
from .access import Access, EtcdError, Member, diagnose, parse_endpoint

MAX_TXN_OPS = 128
"""etcd's default of --max-txn-ops: the most compares, and the most operations of each branch."""

_LARGEST_ANSWER = 64 << 20
"""Bytes. gRPC's own limit of 4 MiB is too low for a pool of 65 536 claims."""

_NO_PROXY = ("grpc.enable_http_proxy", 0)
"""gRPC would send calls through the proxy that http_proxy or grpc_proxy in the environment names. The members are asked
directly, as ``health`` asks them: they are in the overlay or on this host, where a proxy cannot reach them."""

_MESSAGES_OF_AUTH = tuple(
    f"etcdserver: {words}"
    for words in ("user name not found", "role name not found", "role is not granted", "authentication is not enabled")
)
"""What the service Auth says of users and roles, with the status code FAILED_PRECONDITION."""

_MESSAGES_ABOUT_THE_USER = ("authentication failed", "user name is empty")
"""Parts of messages about the user that etcd sends with another status code than UNAUTHENTICATED."""


@dataclass(frozen=True)
class Compare:
    """The condition that a key has this revision; 0 means that the key does not exist."""

    key: str
    revision: int
    kind: str = "mod"
    """Which revision of the key: ``mod`` or ``create``."""


@dataclass(frozen=True)
class UnchangedSince:
    """The condition that no key with this prefix was written after this revision. It does not notice deleted keys."""

    prefix: str
    revision: int


@dataclass(frozen=True)
class Put:
    """Write a key."""

    key: str
    value: str


@dataclass(frozen=True)
class Delete:
    """Delete a key, if it exists."""

    key: str


@dataclass(frozen=True)
class Get:
    """Read a key, all keys that start with it (``prefix``), or all keys from it up to but without ``end``.

    Keys come in the order of their bytes.
    """

    key: str
    prefix: bool = False
    end: str | None = None
    keys_only: bool = False
    """Leave the values empty."""
    count_only: bool = False
    """Return only the number of keys."""


Condition: TypeAlias = "Compare | UnchangedSince"
Operation: TypeAlias = "Put | Delete | Get"


@dataclass(frozen=True)
class KeyValue:
    """A key that was read."""

    key: str
    value: str
    create_revision: int
    mod_revision: int


@dataclass(frozen=True)
class TxnResult:
    """The answer to a transaction."""

    succeeded: bool
    """Whether all conditions held."""
    revision: int
    """etcd's revision after the transaction."""
    ranges: tuple[tuple[KeyValue, ...], ...]
    """The keys of each Get of the branch that was taken, in the order of the Gets."""
    counts: tuple[int, ...]
    """The number of keys of each Get."""
    cluster_id: int = 0
    """etcd's id of its cluster, chosen when the cluster was set up."""


class Etcd:
    """Connections to etcd's members, opened at the first call; a context manager."""

    def __init__(self, access: Access) -> None:
        """Raises EtcdError for a URL or a file that cannot be used."""
        if not access.endpoints:
            raise EtcdError("etcd: no endpoint given")
        self._access = access
        self._members = [parse_endpoint(endpoint, access) for endpoint in access.endpoints]
        self._clients: dict[str, Any] = {}

    def __enter__(self) -> Etcd:
        return self

    def __exit__(self, *exception: object) -> None:
        for client in self._clients.values():
            client.close()

    def txn(
        self, compare: Sequence[Condition], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> TxnResult:
        """Do one transaction on the first member that answers.

        A member that fails during the call may have committed all the same, and the next member is asked to do the
        transaction again: the conditions must make a second commit impossible. Raises EtcdError if no member answers
        in time, or if one refuses.
        """
        library = _load_library()
        request = library.etcdrpc.TxnRequest(
            compare=[_encode_compare(library, condition) for condition in compare],
            success=[_encode_operation(library, operation) for operation in success],
            failure=[_encode_operation(library, operation) for operation in failure],
        )
        return _decode(self._ask_members(library, "KV", "Txn", request))

    def authentication(self, method: str, request: Any) -> Any:
        """Call a method of etcd's service Auth on the first member that answers; ``auth_message`` makes requests.

        Raises EtcdError as ``txn`` does, and RefusedError if etcd does not do what is asked.
        """
        return self._ask_members(_load_library(), "Auth", method, request)

    def _ask_members(self, library: Any, service: str, method: str, request: Any) -> Any:
        failures = []
        for member in self._members:
            try:
                return self._call(library, member, service, method, request)
            except _UnreachableError as unreachable:
                failures.append(f"{member.url} {unreachable}")
        raise EtcdError("etcd: " + "; ".join(failures))

    def _call(self, library: Any, member: Member, service: str, method: str, request: Any) -> Any:
        import grpc  # Not before _load_library: it reads the environment when it is imported.

        try:
            client = self._client(library, member)
            stub = client.kvstub if service == "KV" else library.etcdrpc.AuthStub(client.channel)
            return getattr(stub, method)(
                request,
                timeout=self._access.timeout,
                credentials=client.call_credentials,
                metadata=getattr(client, "metadata", None),
            )
        except grpc.RpcError as error:
            self._clients.pop(member.url, None)
            raise self._error(member, error.code(), str(error.details())) from None
        except library.Etcd3Exception as error:
            raise self._error(member, None, str(error) or type(error).__name__) from None

    def _client(self, library: Any, member: Member) -> Any:
        if member.url not in self._clients:
            access = self._access
            client = library.client(
                host=f"[{member.host}]" if ":" in member.host else member.host,
                port=member.port,
                ca_cert=access.ca_cert if member.tls else None,
                cert_cert=access.client_cert if member.tls else None,
                cert_key=access.client_key if member.tls else None,
                timeout=access.timeout,
                user=access.user,
                password=access.password,
                grpc_options=[("grpc.max_receive_message_length", _LARGEST_ANSWER), _NO_PROXY],
            )
            if not member.tls:
                # The token is in the metadata already; gRPC refuses call credentials without TLS.
                client.call_credentials = None
            self._clients[member.url] = client
        return self._clients[member.url]

    def _error(self, member: Member, code: Any, details: str) -> EvioError:
        """Return the error that says what went wrong: _UnreachableError if another member may be able to answer."""
        name = code.name if code is not None else ""
        if name == "FAILED_PRECONDITION" and details.startswith(_MESSAGES_OF_AUTH):
            return RefusedError(details)
        if name == "RESOURCE_EXHAUSTED" or "database space exceeded" in details:
            return EtcdError(
                f"etcd: {member.url} takes no writes, its space is used up ({details}); compact and defragment it, "
                "then clear the alarm with `etcdctl alarm disarm`"
            )
        is_about_the_user = any(words in details for words in _MESSAGES_ABOUT_THE_USER)
        if name in ("UNAUTHENTICATED", "PERMISSION_DENIED") or is_about_the_user:
            user = self._access.user
            problem = f"refuses the user {user!r}" if user else "asks for a user, and none is given"
            return EtcdError(f"etcd: {member.url} {problem}: {details}")
        if name == "INVALID_ARGUMENT":
            return EtcdError(f"etcd: {member.url} refuses the request: {details}")
        if name == "DEADLINE_EXCEEDED":
            return _UnreachableError(f"did not answer within {self._access.timeout:g} s")
        return _UnreachableError(diagnose(member, self._access) or f"cannot serve: {details}")


class RefusedError(EvioError):
    """etcd does not do what its service Auth is asked for; the message is etcd's own."""


class _UnreachableError(EvioError):
    """One member did not answer; another may."""


def auth_message(kind: str, **fields: Any) -> Any:
    """Return a request of etcd's service Auth, such as ``AuthUserGetRequest``. Raises EtcdError without the library."""
    return getattr(_load_library().etcdrpc, kind)(**fields)


def _load_library() -> Any:
    # With protobuf 4 and later, etcd3's generated code works only with protobuf's Python implementation.
    with contextlib.suppress(Exception):
        if int(str(importlib.import_module("google.protobuf").__version__).partition(".")[0]) >= 4:
            os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import etcd3  # Missing on most hosts: this file must be importable without it.
    except Exception as error:
        # Not only ImportError: a protobuf version that does not fit raises TypeError.
        raise EtcdError(f"talking to etcd needs the library etcd3: install python3-etcd3 ({error})") from error
    return etcd3


def _encode_compare(library: Any, compare: Condition) -> Any:
    rpc = library.etcdrpc
    if isinstance(compare, UnchangedSince):
        prefix = compare.prefix.encode()
        return rpc.Compare(
            key=prefix,
            range_end=prefix_end(prefix),
            target=rpc.Compare.MOD,
            result=rpc.Compare.LESS,
            mod_revision=compare.revision + 1,
        )
    target = {"mod": rpc.Compare.MOD, "create": rpc.Compare.CREATE}[compare.kind]
    revision = {f"{compare.kind}_revision": compare.revision}
    return rpc.Compare(key=compare.key.encode(), target=target, result=rpc.Compare.EQUAL, **revision)


def _encode_operation(library: Any, operation: Operation) -> Any:
    rpc = library.etcdrpc
    if isinstance(operation, Put):
        put = rpc.PutRequest(key=operation.key.encode(), value=operation.value.encode())
        return rpc.RequestOp(request_put=put)
    if isinstance(operation, Delete):
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=operation.key.encode()))
    key = operation.key.encode()
    end = prefix_end(key) if operation.prefix else (operation.end or "").encode()
    get = rpc.RangeRequest(key=key, range_end=end, keys_only=operation.keys_only, count_only=operation.count_only)
    return rpc.RequestOp(request_range=get)


def prefix_end(key: bytes) -> bytes:
    """Return the end of the range of all keys that start with this one (etcd's API: the last byte plus one)."""
    return key[:-1] + bytes([key[-1] + 1])


def _decode(answer: Any) -> TxnResult:
    responses = [op.response_range for op in answer.responses if op.WhichOneof("response") == "response_range"]
    ranges = tuple(
        tuple(
            KeyValue(pair.key.decode(), pair.value.decode(), pair.create_revision, pair.mod_revision)
            for pair in response.kvs
        )
        for response in responses
    )
    header, counts = answer.header, tuple(response.count for response in responses)
    return TxnResult(answer.succeeded, header.revision, ranges, counts, header.cluster_id)
