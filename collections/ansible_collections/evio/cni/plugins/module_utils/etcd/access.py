# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How etcd's members are reached: URLs, certificates, TLS, and in one sentence why a member cannot be reached.

With the standard library alone: ``health`` needs it on hosts that have no etcd library yet. ``client`` does the calls.
"""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import EvioError

_LONGEST_DIAGNOSIS = 2.0
"""Seconds."""


class EtcdError(EvioError):
    """etcd refused a call, or no member answered in time."""


@dataclass(frozen=True)
class Access:
    """How to reach etcd, and how to authenticate. Certificates and keys are paths of PEM files."""

    endpoints: tuple[str, ...]
    """URLs of the members."""
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    timeout: float = 5.0
    """Seconds that one call to one member may take."""


@dataclass(frozen=True)
class Member:
    """One member's address."""

    url: str
    """As the user wrote it."""
    host: str
    port: int
    tls: bool


def parse_endpoint(endpoint: str, access: Access) -> Member:
    """Return the member with this URL. Raises EtcdError if the URL, or a file that it needs, cannot be used."""
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
            raise EtcdError("etcd: a client certificate and its key are needed together, and only one of them is given")
        for path in filter(None, (access.ca_cert, access.client_cert, access.client_key)):
            if not os.access(path, os.R_OK):
                raise EtcdError(f"etcd: cannot read {path}; it is needed to talk to {endpoint}")
    return member


def tls_context(access: Access) -> ssl.SSLContext:
    """Return the context of a TLS connection to a member. Raises OSError for a file that holds no certificate."""
    context = ssl.create_default_context(cafile=access.ca_cert)
    # Python 3.13 asks for extensions that an older kubeadm's certificates do not have.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if access.client_cert:
        context.load_cert_chain(access.client_cert, access.client_key)
    return context


def diagnose(member: Member, access: Access) -> str | None:
    """Connect to a member, and return why it cannot be reached; None if it can.

    For the errors of gRPC, most of which say only that it failed to connect.
    """
    timeout = min(access.timeout, _LONGEST_DIAGNOSIS)
    try:
        with socket.create_connection((member.host, member.port), timeout=timeout) as plain:
            if not member.tls:
                return None
            with tls_context(access).wrap_socket(plain, server_hostname=member.host) as secured:
                return _refusal(secured, access)
    except ssl.SSLCertVerificationError as error:
        return f"shows a certificate that cannot be verified with {access.ca_cert}: {error.verify_message}"
    except ssl.SSLError as error:
        return f"breaks off the TLS handshake: {error.reason or error}"
    except TimeoutError:
        return f"did not answer within {timeout:g} s"
    except ConnectionRefusedError:
        return "refuses connections: is etcd running there? Look on that host: systemctl status etcd, or crictl ps -a"
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"


def _refusal(secured: ssl.SSLSocket, access: Access) -> str | None:
    """Return why a member refuses the client; None if it answers.

    With TLS 1.3 a server refuses a client certificate after the handshake: it sends an alert, or closes the connection.
    """
    try:
        # The preface of HTTP/2 (RFC 9113 section 3.4), which the member answers.
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
