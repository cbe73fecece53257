# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The certificates that lie on a node for etcd, the API server, kubelet and the signalling server, and their age.

They are read, never issued: pki does that for etcd and prosody, kubeadm and kubelet for theirs.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from typing import Any

from ..paths import ETCD_PKI_DIR, KUBEADM_PKI_DIR, XMPP_PKI_DIR

PATTERNS = (
    f"{KUBEADM_PKI_DIR}/*.crt",
    f"{KUBEADM_PKI_DIR}/etcd/*.crt",
    f"{ETCD_PKI_DIR}/*.crt",
    f"{ETCD_PKI_DIR}/etcd/*.crt",
    f"{XMPP_PKI_DIR}/*.crt",
    "/etc/opt/evio/xmpp-ca.crt",
    "/var/lib/kubelet/pki/kubelet-client-current.pem",
)
"""Patterns of glob for the files in which certificates are looked for."""

_MOST_FILES = 100
_LONGEST_FILE = 1 << 20
"""Bytes. A file that is longer holds no certificate of ours."""


@dataclass(frozen=True)
class Certificate:
    """One certificate. The fields are keys of ``evio status --json``; times are in seconds since 1970."""

    path: str
    subject: str
    """Its common name; empty where it cannot be read."""
    valid_from: float | None
    expires: float | None
    error: str | None = None
    """Why it cannot be read."""


def read_certificates(patterns: tuple[str, ...] = PATTERNS) -> list[Certificate]:
    """Return the first certificate of each file; of a file that cannot be read, the reason."""
    files = sorted({path for pattern in patterns for path in glob.glob(pattern)})[:_MOST_FILES]
    return [_read(path) for path in files]


def _read(path: str) -> Certificate:
    try:
        with open(path, "rb") as file:
            text = file.read(_LONGEST_FILE)
    except OSError as error:
        return Certificate(path, "", None, None, f"cannot read {os.path.basename(path)}: {error.strerror}")
    try:
        # Only control-plane hosts have certificates, and importing this takes 60 ms.
        from cryptography import x509
    except ImportError:
        return Certificate(path, "", None, None, "reading it needs the package python3-cryptography")
    try:
        certificate = x509.load_pem_x509_certificate(_certificate_of(text))
    except ValueError as error:
        return Certificate(path, "", None, None, f"it holds no certificate: {str(error)[:200]}")
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return Certificate(
        path,
        str(names[0].value) if names else "",
        _seconds(certificate, "not_valid_before"),
        _seconds(certificate, "not_valid_after"),
    )


def _certificate_of(text: bytes) -> bytes:
    """Return the file's text from its first certificate on: kubelet's file may begin with the key."""
    return text[max(0, text.find(b"-----BEGIN CERTIFICATE-----")) :]


def _seconds(certificate: Any, name: str) -> float:
    """Return a time of the certificate; cryptography before version 42 returns it without its time zone, UTC."""
    import datetime

    moment = getattr(certificate, f"{name}_utc", None) or getattr(certificate, name).replace(
        tzinfo=datetime.timezone.utc
    )
    return float(moment.timestamp())
