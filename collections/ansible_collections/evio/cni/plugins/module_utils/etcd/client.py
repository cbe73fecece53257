# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""etcd, as far as this product needs it: one transaction, with a deadline, against any of several members.

Hides the client library (etcd3, from the distribution) behind ``txn(compare, success, failure)``, and turns what goes
wrong into one sentence. What is kept in etcd is the subject of claims and registry.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from ..errors import EvioError

MAX_TXN_OPS = 128
"""etcd's default --max-txn-ops: of the compares, and of the operations of each branch."""
_LARGEST_ANSWER = 64 << 20
"""Bytes; gRPC's own default of 4 MiB is less than a pool of 65 536 claims."""
_ABOUT_THE_USER = ("authentication failed", "user name is empty")
"""In messages of etcd whose code is about something else."""


class EtcdError(EvioError):
    """etcd refused, or could not be asked in time; nothing is known to have changed."""


@dataclass(frozen=True)
class Access:
    """How etcd is reached: URLs of its members, and files (PEM) or a user's name for who we are."""

    endpoints: tuple[str, ...]
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = 5.0
    """Seconds that one call to one member may take."""


@dataclass(frozen=True)
class Compare:
    """Holds if the key's revision is this; ``create`` or ``mod`` 0 means that the key is not there."""

    key: str
    revision: int
    kind: str = "mod"
    """``mod`` or ``create``."""


@dataclass(frozen=True)
class UnchangedSince:
    """Holds if no key that starts with this was written after this revision; that one was deleted is not noticed."""

    prefix: str
    revision: int


@dataclass(frozen=True)
class Put:
    key: str
    value: str


@dataclass(frozen=True)
class Delete:
    key: str


@dataclass(frozen=True)
class Get:
    """One key; with ``prefix`` all that start with it, with ``end`` all from it to before that; ordered by bytes.

    ``keys_only`` leaves the values empty, ``count_only`` asks for their number and nothing else.
    """

    key: str
    prefix: bool = False
    end: str | None = None
    keys_only: bool = False
    count_only: bool = False


Condition: TypeAlias = "Compare | UnchangedSince"
Operation: TypeAlias = "Put | Delete | Get"


@dataclass(frozen=True)
class KeyValue:
    key: str
    value: str
    create_revision: int
    mod_revision: int


@dataclass(frozen=True)
class TxnResult:
    """``ranges`` has one list for each Get of the branch that was taken, in their order; ``counts`` their numbers."""

    succeeded: bool
    revision: int
    ranges: tuple[tuple[KeyValue, ...], ...]
    counts: tuple[int, ...]


class Etcd:
    """A connection to whichever member answers first; a context manager."""

    def __init__(self, access: Access) -> None:
        """Raises EtcdError for a URL or a file that cannot be used; connects only when it is asked."""
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
        """One transaction on the first member that answers.

        A member that fails after it was asked may have committed: the next one is asked the same, so the compares must
        make a second commit impossible. Raises EtcdError when no member answers in its time, or when one refuses.
        """
        library = _load_library()
        request = library.etcdrpc.TxnRequest(
            compare=[_encode_compare(library, one) for one in compare],
            success=[_encode_operation(library, one) for one in success],
            failure=[_encode_operation(library, one) for one in failure],
        )
        failures = []
        for member in self._members:
            try:
                answer = self._call(library, member, request)
            except _UnreachableError as unreachable:
                failures.append(f"{member.url} {unreachable}")
                continue
            return _decode(answer)
        raise EtcdError("etcd: " + "; ".join(failures))

    def _call(self, library: Any, member: Member, request: Any) -> Any:
        import grpc

        try:
            client = self._client(library, member)
            return client.kvstub.Txn(
                request,
                timeout=self._access.timeout,
                credentials=client.call_credentials,
                metadata=getattr(client, "metadata", None),
            )
        except grpc.RpcError as error:
            self._clients.pop(member.url, None)
            raise self._judge(member, error.code(), str(error.details())) from None
        except library.Etcd3Exception as error:
            raise self._judge(member, None, str(error) or type(error).__name__) from None

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
                grpc_options=[("grpc.max_receive_message_length", _LARGEST_ANSWER)],
            )
            if not member.tls:
                # The token is in the metadata already; gRPC refuses call credentials without TLS.
                client.call_credentials = None
            self._clients[member.url] = client
        return self._clients[member.url]

    def _judge(self, member: Member, code: Any, details: str) -> EvioError:
        name = code.name if code is not None else ""
        if name == "RESOURCE_EXHAUSTED" or "database space exceeded" in details:
            return EtcdError(
                f"etcd: {member.url} takes no writes, its space is used up ({details}); compact and defragment it, "
                "then clear the alarm with `etcdctl alarm disarm`"
            )
        if name in ("UNAUTHENTICATED", "PERMISSION_DENIED") or any(words in details for words in _ABOUT_THE_USER):
            who = (
                f"refuses the user {self._access.user!r}" if self._access.user else "asks for a user, and none is given"
            )
            return EtcdError(f"etcd: {member.url} {who}: {details}")
        if name == "INVALID_ARGUMENT":
            return EtcdError(f"etcd: {member.url} refuses the request: {details}")
        if name == "DEADLINE_EXCEEDED":
            return _UnreachableError(f"did not answer within {self._access.timeout:g} s")
        return _UnreachableError(diagnose(member, self._access) or f"cannot serve: {details}")


class _UnreachableError(EvioError):
    """One member cannot be used now; another may."""


@dataclass(frozen=True)
class Member:
    """One member as it is reached."""

    url: str
    host: str
    port: int
    tls: bool


def parse_endpoint(endpoint: str, access: Access) -> Member:
    """A member's URL and the files it needs. Raises EtcdError for what cannot be used."""
    parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    try:
        port = parts.port or 2379
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise EtcdError(f"etcd: {endpoint!r} is not the URL of a member; it looks like https://10.10.0.1:2379")
    member = Member(endpoint, parts.hostname, port, parts.scheme == "https")
    if member.tls:
        if not access.ca_cert:
            raise EtcdError(f"etcd: {endpoint} needs the CA's certificate, and none is given")
        if bool(access.client_cert) != bool(access.client_key):
            raise EtcdError(
                "etcd: a client certificate needs its key, and a key its certificate; one of them is not given"
            )
        for path in filter(None, (access.ca_cert, access.client_cert, access.client_key)):
            if not os.access(path, os.R_OK):
                raise EtcdError(f"etcd: cannot read {path}; it is needed to talk to {endpoint}")
    return member


def diagnose(member: Member, access: Access) -> str | None:
    """Why a member cannot be reached, in words: gRPC says of most causes only that it failed to connect."""
    timeout = min(access.timeout, 2.0)
    try:
        with socket.create_connection((member.host, member.port), timeout=timeout) as plain:
            if not member.tls:
                return None
            with tls_context(access).wrap_socket(plain, server_hostname=member.host) as secured:
                return _refusal(secured, access)
    except ssl.SSLCertVerificationError as error:
        return f"shows a certificate that {access.ca_cert} does not vouch for: {error.verify_message}"
    except ssl.SSLError as error:
        return f"breaks off the TLS handshake: {error.reason or error}"
    except TimeoutError:
        return f"did not answer within {timeout:g} s"
    except ConnectionRefusedError:
        return "refuses connections: is etcd running there?"
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"


def tls_context(access: Access) -> ssl.SSLContext:
    """What both sides show each other. Raises OSError for files that hold no certificate."""
    context = ssl.create_default_context(cafile=access.ca_cert)
    # Python 3.13 asks for extensions that an older kubeadm's certificates do not have.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if access.client_cert:
        context.load_cert_chain(access.client_cert, access.client_key)
    return context


def _refusal(secured: ssl.SSLSocket, access: Access) -> str | None:
    """TLS 1.3 tells of a refused client certificate only after the handshake, as an alert or by ending."""
    try:
        secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        if secured.recv(1):
            return None
        reason = "it ends the connection after the handshake"
    except TimeoutError:
        raise
    except OSError as error:
        reason = str(getattr(error, "reason", "") or error.strerror or error).lower().replace("_", " ")
    shown = f"the client certificate {access.client_cert}" if access.client_cert else "a client without a certificate"
    return f"refuses {shown}: {reason}"


def _load_library() -> Any:
    # etcd3's generated code works with protobuf 4 and later only in its Python implementation, the slow one.
    with contextlib.suppress(Exception):
        if int(str(importlib.import_module("google.protobuf").__version__).partition(".")[0]) >= 4:
            os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import etcd3
    except Exception as error:
        # Not only ImportError: a protobuf that does not fit raises TypeError.
        raise EtcdError(f"talking to etcd needs the library etcd3: install python3-etcd3 ({error})") from error
    return etcd3


def _encode_compare(library: Any, compare: Condition) -> Any:
    rpc = library.etcdrpc
    if isinstance(compare, UnchangedSince):
        prefix = compare.prefix.encode()
        return rpc.Compare(
            key=prefix,
            range_end=_prefix_end(prefix),
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
    end = _prefix_end(key) if operation.prefix else (operation.end or "").encode()
    asked = rpc.RangeRequest(key=key, range_end=end, keys_only=operation.keys_only, count_only=operation.count_only)
    return rpc.RequestOp(request_range=asked)


def _prefix_end(key: bytes) -> bytes:
    return key[:-1] + bytes([key[-1] + 1])


def _decode(answer: Any) -> TxnResult:
    found = [r.response_range for r in answer.responses if r.WhichOneof("response") == "response_range"]
    ranges = tuple(
        tuple(
            KeyValue(pair.key.decode(), pair.value.decode(), pair.create_revision, pair.mod_revision)
            for pair in one.kvs
        )
        for one in found
    )
    return TxnResult(answer.succeeded, answer.header.revision, ranges, tuple(one.count for one in found))
