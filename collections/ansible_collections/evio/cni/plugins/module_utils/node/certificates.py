# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The certificates that lie on a node for etcd, the API server, kubelet and the signalling server, and their age.

They are read, never issued: pki does that for etcd and prosody, kubeadm and kubelet for theirs.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..atomic_file import read_text
from ..paths import ETCD_DROP_IN, ETCD_PKI_DIR, KUBEADM_PKI_DIR, XMPP_PKI_DIR
from ..pki_layout import is_of_etcd, is_of_etcd_user

_SIGNALLING_CA = "/etc/opt/evio/xmpp-ca.crt"
_KUBELET = "/var/lib/kubelet/pki/kubelet-client-current.pem"

PATTERNS = (
    f"{KUBEADM_PKI_DIR}/*.crt",
    f"{KUBEADM_PKI_DIR}/etcd/*.crt",
    f"{ETCD_PKI_DIR}/*.crt",
    f"{ETCD_PKI_DIR}/etcd/*.crt",
    f"{XMPP_PKI_DIR}/*.crt",
    _SIGNALLING_CA,
    _KUBELET,
)
"""Patterns of glob for the usual files. Others are named by etcd's drop-in and by the node's identity file."""

COLLECTION, DAEMONSET, KUBEADM, KUBELET, SITE = (
    "evio.cni",
    "evio.cni for its DaemonSet",
    "kubeadm",
    "kubelet",
    "the site",
)
"""Who renews a certificate. The DaemonSet's is issued by this collection, and then applied by the operator."""

_ETCD_SERVER = re.compile(r"(?m)^Environment=ETCD_CERT_FILE=(/.+)/etcd/server\.crt$")
"""In the drop-in of the role etcd."""

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
    renewed_by: str = SITE
    """COLLECTION, DAEMONSET, KUBEADM, KUBELET or SITE."""
    is_ca: bool = False
    """Whether it is the certificate of a CA, which neither this collection nor kubeadm renews."""


def read_certificates(
    more: Sequence[str] = (), *, patterns: Sequence[str] = PATTERNS, etcd_drop_in: str = ETCD_DROP_IN
) -> list[Certificate]:
    """Return the first certificate of each file; of a file that cannot be read, the reason.

    ``more`` are files, and directories of certificates, which need not be there. So are those of the etcd that
    ``etcd_drop_in`` configures.
    """
    managed = _managed_directory(etcd_drop_in)
    others = [*more, *([managed] if managed is not None else ())]
    found = {path for pattern in (*patterns, *_patterns(others)) for path in glob.glob(pattern)}
    return [replace(_read(path), renewed_by=_renewer(path, managed)) for path in sorted(found)[:_MOST_FILES]]


def _managed_directory(etcd_drop_in: str) -> str | None:
    """Return the directory with the certificates of the etcd that this collection runs; None where it runs none."""
    try:
        match = _ETCD_SERVER.search(read_text(Path(etcd_drop_in)) or "")
    except (OSError, UnicodeDecodeError):
        return None
    return match[1] if match else None


def _patterns(places: Sequence[str]) -> Iterator[str]:
    for place in places:
        name = glob.escape(place)
        yield from (f"{name}/*.crt", f"{name}/etcd/*.crt") if os.path.isdir(place) else (name,)


def _renewer(path: str, managed: str | None) -> str:
    """Return who renews the certificate, which its place tells; ``managed`` is as of ``_managed_directory``."""
    directory = os.path.dirname(path)
    base = directory.removesuffix("/etcd")
    name = os.path.relpath(path, base).removesuffix(".crt")
    if is_of_etcd_user(name):
        return DAEMONSET
    # Where there is such an etcd, its role also renews what an earlier version has left in kubeadm's directory.
    if base in (ETCD_PKI_DIR, managed) or (base == KUBEADM_PKI_DIR and managed is not None and is_of_etcd(name)):
        return COLLECTION
    if directory in (XMPP_PKI_DIR, os.path.dirname(_SIGNALLING_CA)):
        return COLLECTION
    if base == KUBEADM_PKI_DIR:
        return KUBEADM
    return KUBELET if path == _KUBELET else SITE


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
        is_ca=_is_ca(x509, certificate),
    )


def _certificate_of(text: bytes) -> bytes:
    """Return the file's text from its first certificate on: kubelet's file may begin with the key."""
    return text[max(0, text.find(b"-----BEGIN CERTIFICATE-----")) :]


def _is_ca(x509: Any, certificate: Any) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (ValueError, x509.ExtensionNotFound):
        return False


def _seconds(certificate: Any, name: str) -> float:
    """Return a time of the certificate; cryptography before version 42 returns it without its time zone, UTC."""
    import datetime

    moment = getattr(certificate, f"{name}_utc", None) or getattr(certificate, name).replace(
        tzinfo=datetime.timezone.utc
    )
    return float(moment.timestamp())
