# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module etcd_pki: certificates in kubeadm's layout are issued once, and again only for a reason."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.evio.cni.plugins.module_utils import pki
from ansible_collections.evio.cni.plugins.module_utils.pki_layout import client_layout
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from .ansible_module import check_do_again, run_module

LEAVES = ["etcd/server", "etcd/peer", "etcd/healthcheck-client", "apiserver-etcd-client"]
MEMBER = {"name": "node1", "addresses": ["10.10.0.1"]}


def certificate(directory: Path, path: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((directory / f"{path}.crt").read_bytes())


def usages(directory: Path, path: str) -> set[Any]:
    return set(certificate(directory, path).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def names(directory: Path, path: str) -> set[str]:
    alternative = certificate(directory, path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in alternative}


def test_certificates_are_issued_once_in_the_layout_of_kubeadm(tmp_path: Path) -> None:
    _predicted, done, again = check_do_again("etcd_pki", directory=str(tmp_path), **MEMBER)
    assert done["issued"] == ["etcd/ca", *LEAVES]
    assert again["issued"] == []
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {f"{path}.{suffix}" for path in ("etcd/ca", *LEAVES) for suffix in ("crt", "key")}
    assert {(tmp_path / f"{path}.key").stat().st_mode & 0o777 for path in ("etcd/ca", *LEAVES)} == {0o600}


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    assert run_module("etcd_pki", check_mode=True, directory=str(tmp_path / "pki"), **MEMBER)["changed"]
    assert not (tmp_path / "pki").exists()


def test_server_certificates_name_the_member_and_serve_clients_too(tmp_path: Path) -> None:
    run_module("etcd_pki", directory=str(tmp_path), **MEMBER)
    for path in ("etcd/server", "etcd/peer"):
        assert names(tmp_path, path) == {"node1", "localhost", "127.0.0.1", "::1", "10.10.0.1"}
        assert usages(tmp_path, path) == {Usage.SERVER_AUTH, Usage.CLIENT_AUTH}
    for path in ("etcd/healthcheck-client", "apiserver-etcd-client"):
        assert usages(tmp_path, path) == {Usage.CLIENT_AUTH}
    ca = certificate(tmp_path, "etcd/ca").extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    for path in LEAVES:
        authority = certificate(tmp_path, path).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert authority.key_identifier == ca.digest


def test_new_address_renews_only_the_certificates_that_name_the_member(tmp_path: Path) -> None:
    run_module("etcd_pki", directory=str(tmp_path), **MEMBER)
    before = {path: certificate(tmp_path, path).serial_number for path in ("etcd/ca", *LEAVES)}
    _predicted, done, _again = check_do_again(
        "etcd_pki", directory=str(tmp_path), name="node1", addresses=["10.10.0.1", "10.10.0.9"]
    )
    assert done["issued"] == ["etcd/server", "etcd/peer"]
    changed = [path for path, serial in before.items() if certificate(tmp_path, path).serial_number != serial]
    assert changed == ["etcd/server", "etcd/peer"]
    assert "10.10.0.9" in names(tmp_path, "etcd/server")


def test_certificate_that_expires_soon_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pki.issue(str(tmp_path), "node1", [])
    assert pki.outdated(str(tmp_path), "node1", []) == []
    later = pki._now() + datetime.timedelta(days=300)
    monkeypatch.setattr(pki, "_now", lambda: later)
    assert pki.issue(str(tmp_path), "node1", []) == LEAVES
    assert pki.outdated(str(tmp_path), "node1", []) == []


def test_days_left_decide_when_a_certificate_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pki, "_LEAF_DAYS", 120)
    pki.issue(str(tmp_path), "node1", ["10.10.0.1"])
    pki.issue(str(tmp_path), "evio-cni", [], client_layout("evio-cni"))
    ca = certificate(tmp_path, "etcd/ca").serial_number
    etcd = {"directory": str(tmp_path), **MEMBER}
    assert not run_module("etcd_pki", **etcd)["changed"]
    _predicted, done, _again = check_do_again("etcd_pki", **etcd, renew_days=130)
    assert done["issued"] == LEAVES
    client = {"directory": str(tmp_path), "name": "evio-cni"}
    assert not run_module("etcd_client_certificate", **client, renew_days=110)["changed"]
    _predicted, done, _again = check_do_again("etcd_client_certificate", **client, renew_days=130)
    assert done["issued"] == ["evio-cni-etcd-client"]
    assert certificate(tmp_path, "etcd/ca").serial_number == ca


def test_all_certificates_are_renewed_on_demand_but_not_the_ca(tmp_path: Path) -> None:
    pki.issue(str(tmp_path), "node1", ["10.10.0.1"])
    etcd = {"directory": str(tmp_path), **MEMBER, "renew_all": True}
    serials = [[certificate(tmp_path, path).serial_number for path in ("etcd/ca", *LEAVES)]]
    assert run_module("etcd_pki", check_mode=True, **etcd)["issued"] == LEAVES
    assert [certificate(tmp_path, path).serial_number for path in ("etcd/ca", *LEAVES)] == serials[0]
    for _run in range(2):
        assert run_module("etcd_pki", **etcd)["issued"] == LEAVES
        serials.append([certificate(tmp_path, path).serial_number for path in ("etcd/ca", *LEAVES)])
    assert [len(set(found)) for found in zip(*serials, strict=True)] == [1, 3, 3, 3, 3]
    assert pki.outdated(str(tmp_path), "node1", ["10.10.0.1"]) == []
    (tmp_path / "etcd/ca.key").unlink()
    refused = run_module("etcd_pki", **etcd)
    assert "etcd/ca.key is not there" in refused["msg"]
    assert [certificate(tmp_path, path).serial_number for path in ("etcd/ca", *LEAVES)] == serials[-1]


@pytest.mark.parametrize("days", [0, -1, 331, 400])
def test_days_after_which_every_run_would_renew_are_refused(tmp_path: Path, days: int) -> None:
    refused = run_module("etcd_pki", directory=str(tmp_path / "pki"), **MEMBER, renew_days=days)
    assert f"renew_days: {days} is not from 1 to 330" in refused["msg"]
    assert not (tmp_path / "pki").exists()


def test_key_without_its_certificate_is_replaced(tmp_path: Path) -> None:
    pki.issue(str(tmp_path), "node1", [])
    stranger = tmp_path / "stranger"
    pki.issue(str(stranger), "node1", [])
    (stranger / "etcd/peer.key").rename(tmp_path / "etcd/peer.key")
    assert pki.issue(str(tmp_path), "node1", []) == ["etcd/peer"]


def test_certificate_of_another_ca_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    pki.issue(str(tmp_path), "node1", [])
    stranger = tmp_path / "stranger"
    pki.issue(str(stranger), "node1", [])
    for suffix in ("crt", "key"):
        (stranger / f"etcd/server.{suffix}").rename(tmp_path / f"etcd/server.{suffix}")
    assert pki.issue(str(tmp_path), "node1", []) == ["etcd/server"]


def test_ca_without_its_key_is_not_replaced(tmp_path: Path) -> None:
    pki.issue(str(tmp_path), "node1", [])
    (tmp_path / "etcd/ca.key").unlink()
    assert not run_module("etcd_pki", directory=str(tmp_path), name="node1")["changed"]
    refused = run_module("etcd_pki", directory=str(tmp_path), **MEMBER)
    assert refused["failed"]
    assert "etcd/ca.key is not there; the CA is kept elsewhere" in refused["msg"]


def test_rsa_ca_of_kubeadm_is_used_and_its_certificates_stay(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etcd-ca")])
    now = datetime.datetime.now(datetime.timezone.utc)
    ca = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "etcd/ca.crt").write_bytes(ca.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    (tmp_path / "etcd/ca.key").write_bytes(pem)
    _predicted, done, _again = check_do_again("etcd_pki", directory=str(tmp_path), **MEMBER)
    assert done["issued"] == LEAVES


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another group")
def test_group_reads_only_the_keys_of_etcd_itself(tmp_path: Path) -> None:
    run_module("etcd_pki", directory=str(tmp_path), group="adm", **MEMBER)
    modes = {path: (tmp_path / f"{path}.key").stat().st_mode & 0o777 for path in ("etcd/ca", *LEAVES)}
    assert {path for path, mode in modes.items() if mode == 0o640} == {"etcd/server", "etcd/peer"}
    refused = run_module("etcd_pki", directory=str(tmp_path / "other"), group="nobody-has-this", **MEMBER)
    assert "'nobody-has-this' is no group of this host" in refused["msg"]


def test_certificates_in_the_directory_of_kubeadm_are_taken_over_and_kept_valid_there(
    tmp_path: Path,
) -> None:
    kubeadm, own = tmp_path / "kubeadm", tmp_path / "own"
    run_module("etcd_pki", directory=str(kubeadm), **MEMBER)
    directories = {"directory": str(own), "adopted_directory": str(kubeadm)}
    _predicted, done, _again = check_do_again("etcd_pki", **directories, **MEMBER)
    assert done["issued"] == []
    files = sorted(str(path.relative_to(kubeadm)) for path in kubeadm.rglob("*.*"))
    assert files == sorted(str(path.relative_to(own)) for path in own.rglob("*.*"))
    assert all((own / name).read_bytes() == (kubeadm / name).read_bytes() for name in files)
    assert {(own / name).stat().st_mode & 0o777 for name in files if name.endswith(".key")} == {0o600}

    # Today's certificate of kubeadm's API server is renewed where the API server reads it.
    (kubeadm / "apiserver-etcd-client.crt").unlink()
    assert run_module("etcd_pki", **directories, **MEMBER)["changed"]
    assert certificate(kubeadm, "apiserver-etcd-client").issuer == certificate(own, "etcd/ca").subject

    # kubeadm reset
    shutil.rmtree(kubeadm)
    assert not run_module("etcd_pki", **directories, **MEMBER)["changed"]
    assert not kubeadm.exists()


def test_takeover_that_was_interrupted_is_completed(tmp_path: Path) -> None:
    kubeadm, own = tmp_path / "kubeadm", tmp_path / "own"
    pki.issue(str(kubeadm), "node1", ["10.10.0.1"])
    pki.adopt(str(kubeadm), str(own))
    for name in ("etcd/ca.crt", "etcd/ca.key", "etcd/server.crt"):
        (own / name).unlink()
    assert run_module("etcd_pki", directory=str(own), adopted_directory=str(kubeadm), **MEMBER)["issued"] == []
    assert (own / "etcd/ca.crt").read_bytes() == (kubeadm / "etcd/ca.crt").read_bytes()
    assert pki.outdated(str(own), "node1", ["10.10.0.1"]) == []


def test_other_ca_in_the_directory_of_kubeadm_is_left_alone(tmp_path: Path) -> None:
    kubeadm, own = tmp_path / "kubeadm", tmp_path / "own"
    pki.issue(str(own), "node1", ["10.10.0.1"])
    pki.issue(str(kubeadm), "other", [])
    before = {path: path.read_bytes() for path in kubeadm.rglob("*.*")}
    assert not run_module("etcd_pki", directory=str(own), adopted_directory=str(kubeadm), **MEMBER)["changed"]
    assert {path: path.read_bytes() for path in kubeadm.rglob("*.*")} == before


def test_host_without_the_library_is_told_in_check_mode_what_would_be_issued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki, "_MISSING_LIBRARY", ImportError("cryptography"))
    assert pki.outdated(str(tmp_path), "node1", []) == ["etcd/ca", *LEAVES]
    with pytest.raises(pki.PkiError, match="install the package python3-cryptography"):
        pki.issue(str(tmp_path), "node1", [])
    assert list(tmp_path.iterdir()) == []


def test_removal_takes_the_files_of_the_layout_and_no_other(tmp_path: Path) -> None:
    directory = tmp_path / "ssl"
    run_module("etcd_pki", directory=str(directory), **MEMBER)
    run_module("etcd_client_certificate", directory=str(directory), name="evio-cni")
    theirs = ("etcd/site.crt", "site-etcd-client.key", "certs/root.pem")
    for path in theirs:
        (directory / path).parent.mkdir(exist_ok=True)
        (directory / path).touch()
    arguments = {"state": "absent", "directory": f"{directory}/", "users": ["evio-cni"]}
    _predicted, done, _again = check_do_again("etcd_pki", **arguments)
    assert len(done["removed"]) == 2 * len(["etcd/ca", *LEAVES, "evio-cni-etcd-client"])
    assert {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()} == set(theirs)


def test_removal_leaves_a_ca_that_the_site_has_made(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    key, certificate = tmp_path / "etcd/ca.key", tmp_path / "etcd/ca.crt"
    subject = ["-subj", "/CN=The CA of the site", "-days", "10"]
    openssl = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run([*openssl, *subject], check=True, capture_output=True)
    run_module("etcd_pki", directory=str(tmp_path), **MEMBER)
    _predicted, done, _again = check_do_again("etcd_pki", state="absent", directory=str(tmp_path))
    assert len(done["removed"]) == 2 * len(LEAVES)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["ca.crt", "ca.key"]


def test_removal_takes_a_directory_that_has_nothing_else(tmp_path: Path) -> None:
    run_module("etcd_pki", directory=str(tmp_path / "pki"), **MEMBER)
    # As a killed run leaves it.
    (tmp_path / "pki/etcd" / f".ca.key.{'5e' * 8}.tmp").touch()
    _predicted, done, again = check_do_again("etcd_pki", state="absent", directory=str(tmp_path / "pki"))
    assert done["removed"][-2:] == [f"{tmp_path}/pki/etcd", f"{tmp_path}/pki"]
    assert again["removed"] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("written", ["pki", "pki/", "./pki", "link", "link/"])
def test_certificates_in_the_directory_of_kubeadm_stay_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "pki")
    monkeypatch.setattr(pki, "KUBEADM_PKI_DIR", str(tmp_path / "pki"))
    assert pki.removable_files(f"{tmp_path}/{written}", []) == []
    assert f"{tmp_path}/other/etcd/ca.key" in pki.removable_files(f"{tmp_path}/other", [])
