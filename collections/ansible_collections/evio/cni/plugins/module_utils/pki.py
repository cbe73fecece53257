# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Issue certificates for etcd and for the XMPP server on sites that have none: a CA, and the certificates it signs.

Files have the names and places that the services expect; for etcd those are kubeadm's. Needs cryptography on the host.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .atomic_file import make_directories, read_file, unfinished_writes, write_atomic
from .errors import EvioError
from .paths import KUBEADM_PKI_DIR
from .pki_layout import ETCD, Layout, Leaf, client_layout

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    _MISSING_LIBRARY: ImportError | None = error
else:
    _MISSING_LIBRARY = None

PKI_DIR = KUBEADM_PKI_DIR

_CA_DAYS = 3650
_LEAF_DAYS = 365
RENEW_DAYS = 90
"""A certificate that is valid for fewer days is issued again at the next run; a CA is never."""

MOST_RENEW_DAYS = 330
"""With more, a certificate would be issued again soon after it was issued."""


class PkiError(EvioError):
    """A certificate cannot be read or issued, or the existing one must not be replaced."""


def removable_files(directory: str, users: Sequence[str]) -> list[str]:
    """Return the paths of the files that ETCD and the client layouts of ``users`` may have in a directory.

    None in kubeadm's directory, however it is written: there the files of these names are kubeadm's. A CA that somebody
    else has made is left out.
    """
    if os.path.realpath(directory) == os.path.realpath(KUBEADM_PKI_DIR):
        return []
    layouts = [ETCD, *map(client_layout, users)]
    stems = [leaf.path for layout in layouts for leaf in layout.leaves]
    stems += [ETCD.ca] if _is_our_ca(f"{directory}/{ETCD.ca}.crt") else []
    files = [f"{directory}/{stem}.{suffix}" for stem in stems for suffix in ("crt", "key")]
    return [path for file in files for path in (file, *unfinished_writes(file))]


def _is_our_ca(path: str) -> bool:
    """Return whether a CA has the name of ours. One that cannot be read, or is gone, is taken to have it."""
    try:
        return common_name(path) == ETCD.ca_name
    except PkiError:
        return True


def common_name(path: str) -> str:
    """Return the common name of a certificate's subject, empty if it has none. Raises PkiError."""
    _need_library()
    certificate = _load(Path(path))
    if certificate is None:
        raise PkiError(f"{path} is not there")
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def outdated(
    directory: str,
    name: str,
    addresses: Sequence[str],
    layout: Layout = ETCD,
    *,
    renew_days: int = RENEW_DAYS,
    renew_all: bool = False,
) -> list[str]:
    """Return the paths of the certificates that must be issued, the CA first. Writes nothing.

    A certificate must be issued if it is missing, expires in fewer than ``renew_days``, is of another CA, does not fit
    its key, or lacks one of the member's names; with ``renew_all`` in any case. A CA that is there stays. Raises
    PkiError if the CA's key is needed and is not there: the site keeps it elsewhere.
    """
    if not 1 <= renew_days <= MOST_RENEW_DAYS:
        raise PkiError(
            f"renew_days: {renew_days} is not from 1 to {MOST_RENEW_DAYS}; new certificates are valid for {_LEAF_DAYS}"
        )
    base = Path(directory)
    if not (base / f"{layout.ca}.crt").exists():
        # Known without the library, which a host does not have yet when a run in check mode asks.
        return [layout.ca, *(leaf.path for leaf in layout.leaves)]
    _need_library()
    ca = _load(base / f"{layout.ca}.crt")
    stale = [
        leaf.path
        for leaf in layout.leaves
        if renew_all or not _is_good(base, leaf, ca, _names(leaf, name, addresses), renew_days)
    ]
    if stale and not (base / f"{layout.ca}.key").exists():
        raise PkiError(
            f"{base}/{stale[0]}.crt must be issued, but {base}/{layout.ca}.key is not there; the CA is kept elsewhere"
        )
    return stale


def issue(
    directory: str,
    name: str,
    addresses: Sequence[str],
    layout: Layout = ETCD,
    *,
    key_group: int | None = None,
    renew_days: int = RENEW_DAYS,
    renew_all: bool = False,
) -> list[str]:
    """Issue the outdated certificates and return their paths; which they are is said by ``outdated``.

    Keys have the mode 0600; a server's key has 0640 and the group ``key_group``, if a group's id is given.
    """
    stale = outdated(directory, name, addresses, layout, renew_days=renew_days, renew_all=renew_all)
    if not stale:
        return []
    _need_library()
    base = Path(directory)
    make_directories((base / layout.ca).parent)
    if layout.ca in stale:
        ca_key: Any = ec.generate_private_key(ec.SECP256R1())
        ca = _sign(_ca_builder(layout.ca_name), ca_key, ca_key, _subject(layout.ca_name, None), days=_CA_DAYS)
        _store(base, layout.ca, ca_key, ca, None)
    else:
        ca_key, ca = _load_key(base / f"{layout.ca}.key"), _load(base / f"{layout.ca}.crt")
    for leaf in layout.leaves:
        if leaf.path in stale:
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _sign(_leaf_builder(leaf, name, addresses), key, ca_key, ca.subject, days=_LEAF_DAYS)
            _store(base, leaf.path, key, certificate, key_group if leaf.server else None)
    return stale


def adoptable(source: str, directory: str, layout: Layout = ETCD) -> list[str]:
    """Return the paths of the certificates that ``adopt`` would copy: none if ``directory`` has a CA."""
    if source == directory or (Path(directory) / f"{layout.ca}.crt").exists():
        return []
    if not (Path(source) / f"{layout.ca}.crt").exists():
        return []
    paths = [layout.ca, *(leaf.path for leaf in layout.leaves)]
    return [path for path in paths if (Path(source) / f"{path}.crt").exists()]


def adopt(source: str, directory: str, layout: Layout = ETCD, *, key_group: int | None = None) -> None:
    """Copy CA, certificates and keys of ``source``, which stay there. Modes are those that ``issue`` gives."""
    servers = {leaf.path for leaf in layout.leaves if leaf.server}
    # The CA's certificate is the last file: a run that was killed before it copies everything again.
    for path in reversed(adoptable(source, directory, layout)):
        (Path(directory) / path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        group = key_group if path in servers else None
        key = _read(Path(source) / f"{path}.key")
        if key is not None:
            write_atomic(Path(directory) / f"{path}.key", key, mode=0o600 if group is None else 0o640, gid=group)
        certificate = _read(Path(source) / f"{path}.crt")
        if certificate is not None:
            write_atomic(Path(directory) / f"{path}.crt", certificate, mode=0o644)


def have_same_ca(one: str, other: str, layout: Layout = ETCD) -> bool:
    """Return whether both directories have the same CA, and the first has the CA's key."""
    first, second = (_read(Path(directory) / f"{layout.ca}.crt") for directory in (one, other))
    return first is not None and first == second and (Path(one) / f"{layout.ca}.key").exists()


def _need_library() -> None:
    if _MISSING_LIBRARY is not None:
        raise PkiError(
            "certificates need the library cryptography: install the package python3-cryptography"
        ) from _MISSING_LIBRARY


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PkiError(f"cannot read {path}: {error}") from error


def _is_good(base: Path, leaf: Leaf, ca: Any, names: set[str], renew_days: int) -> bool:
    certificate = _load(base / f"{leaf.path}.crt")
    if certificate is None or not (base / f"{leaf.path}.key").exists() or certificate.issuer != ca.subject:
        return False
    if _load_key(base / f"{leaf.path}.key").public_key().public_numbers() != certificate.public_key().public_numbers():
        return False  # An earlier run was killed between writing the key and writing the certificate.
    if not _is_signed_by(certificate, ca.public_key()):
        return False
    if _end(certificate) - _now() < datetime.timedelta(days=renew_days):
        return False
    if not names:
        return True
    alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = {str(value) for kind in (x509.DNSName, x509.IPAddress) for value in alternative.get_values_for_type(kind)}
    return names <= found


def _is_signed_by(certificate: Any, key: Any) -> bool:
    """Return whether this key has signed the certificate: an elliptic curve's key, or RSA, which kubeadm uses.

    cryptography has a method for this since version 40; Debian 12 has 38.
    """
    algorithm = certificate.signature_hash_algorithm
    scheme = (padding.PKCS1v15(), algorithm) if isinstance(key, rsa.RSAPublicKey) else (ec.ECDSA(algorithm),)
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, *scheme)
    except InvalidSignature:
        return False
    return True


def _names(leaf: Leaf, name: str, addresses: Sequence[str]) -> set[str]:
    return {name, "localhost", "127.0.0.1", "::1", *addresses} if leaf.server else set()


def _ca_builder(name: str) -> Any:
    builder = x509.CertificateBuilder().subject_name(_subject(name, None))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.add_extension(_key_usage(sign=True), critical=True)


def _leaf_builder(leaf: Leaf, name: str, addresses: Sequence[str]) -> Any:
    builder = x509.CertificateBuilder().subject_name(_subject(leaf.common_name or name, leaf.organization))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(sign=False), critical=True)
    # etcd's own gRPC gateway connects to etcd as a client, with the server's certificate.
    usages = [*([ExtendedKeyUsageOID.SERVER_AUTH] if leaf.server else []), ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    names = sorted(_names(leaf, name, addresses))
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(text) for text in names]), critical=False
        )
    return builder


def _sign(builder: Any, key: Any, ca_key: Any, issuer: Any, *, days: int) -> Any:
    now = _now()
    builder = builder.issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(minutes=5))
    builder = builder.not_valid_after(now + datetime.timedelta(days=days))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
    )
    return builder.sign(ca_key, hashes.SHA256())


def _subject(common_name: str, organization: str | None) -> Any:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        names.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(names)


def _key_usage(*, sign: bool) -> Any:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not sign,
        key_cert_sign=sign,
        crl_sign=sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _load(path: Path) -> Any:
    try:
        found = read_file(path)
        return x509.load_pem_x509_certificate(found[0]) if found is not None else None
    except (OSError, ValueError) as error:
        raise PkiError(f"cannot read the certificate {path}: {error}") from error


def _load_key(path: Path) -> Any:
    try:
        return load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise PkiError(f"cannot read the key {path}: {error}") from error


def _store(base: Path, path: str, key: Any, certificate: Any, key_group: int | None) -> None:
    """Write the key first, so that every certificate has its key."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    write_atomic(base / f"{path}.key", pem, mode=0o600 if key_group is None else 0o640, gid=key_group)
    write_atomic(base / f"{path}.crt", certificate.public_bytes(Encoding.PEM), mode=0o644)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _end(certificate: Any) -> datetime.datetime:
    # cryptography returns the time with its zone since version 42; Debian 12 has 38.
    if hasattr(certificate, "not_valid_after_utc"):
        end: datetime.datetime = certificate.not_valid_after_utc
        return end
    naive: datetime.datetime = certificate.not_valid_after
    return naive.replace(tzinfo=datetime.timezone.utc)
