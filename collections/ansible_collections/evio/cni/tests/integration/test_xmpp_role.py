# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of the role xmpp, used by a real prosody and coturn: nodes of an overlay sign in and find each other.

The client does what EdgeVPN.io's does: TLS with a trusted certificate, SASL PLAIN, roster, messages.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .etcd_server import free_port

pytestmark = pytest.mark.root

COLLECTIONS = Path(__file__).resolve().parents[5]
DOMAIN = "xmpp.example"
NODES = ("node1", "node2")
PLAYBOOK = """
- hosts: evio_signalling
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: evio.cni.xmpp
        tasks_from: configure
"""


MAKE_PASSWORDS = """
- hosts: evio_signalling
  gather_facts: false
  roles: [evio.cni.cluster]
  tasks:
    - ansible.builtin.include_role:
        name: evio.cni.xmpp
        tasks_from: new_passwords
"""
GIVE_PASSWORDS = """
- hosts: evio_signalling,{nodes}
  gather_facts: false
  serial: 1
  roles: [evio.cni.cluster]
  tasks:
    - ansible.builtin.include_role:
        name: evio.cni.xmpp
        tasks_from: "{{{{ 'new_passwords' if inventory_hostname == 'signalling' else 'rotate_accounts' }}}}"
"""
FORGET_PASSWORDS = """
- hosts: evio_signalling
  gather_facts: false
  roles: [evio.cni.cluster]
  tasks:
    - ansible.builtin.include_role:
        name: evio.cni.xmpp
        tasks_from: former_passwords
"""


def account(node: str, overlay: str) -> dict[str, str]:
    return {"username": f"{node}-{overlay}@{DOMAIN}", "password": f"secret of {node} {overlay}"}


class Site:
    """The inventory of a site, the directories of its signalling host, and the two servers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.xmpp_port, self.turn_port = free_port(), free_port()
        self.turn = {"address": f"{DOMAIN}:{self.turn_port}", "user": "evio", "password": "turn secret"}
        self.nodes = {
            node: {"evio_xmpp_host_account": account(node, "host"), "evio_xmpp_pod_account": account(node, "pods")}
            for node in NODES
        }
        self._servers: list[subprocess.Popen[bytes]] = []
        for name, owner in (("prosody", "prosody"), ("data", "prosody"), ("run", "prosody")):
            (directory / name).mkdir()
            shutil.chown(directory / name, owner, owner)

    @property
    def credentials(self) -> Path:
        return self.directory / "passwords.vault"

    def configure(self, *removed: str, playbook: str = PLAYBOOK) -> subprocess.CompletedProcess[str]:
        variables = {
            "evio_leaving_nodes": removed,
            "ansible_connection": "local",
            "ansible_python_interpreter": "/usr/bin/python3",
            "evio_overlay": "evio",
            "evio_xmpp_host": DOMAIN,
            "evio_xmpp_port": self.xmpp_port,
            "evio_xmpp_interfaces": ["127.0.0.1"],
            "evio_xmpp_config_dir": str(self.directory / "prosody"),
            "evio_xmpp_data_dir": str(self.directory / "data"),
            "evio_xmpp_pid_file": str(self.directory / "run/prosody.pid"),
            "evio_turn_port": self.turn_port,
            "evio_turn_addresses": ["127.0.0.1"],
            "evio_turn_servers": [self.turn, {"address": "elsewhere.example:3478", "user": "other", "password": "x"}],
            "evio_turn_config": str(self.directory / "turnserver.conf"),
            "evio_credentials_file": str(self.credentials),
            "evio_rotate": "xmpp,turn",
        }
        inventory = {
            "all": {
                "vars": variables,
                "children": {"evio_nodes": {"hosts": self.nodes}, "evio_signalling": {"hosts": {"signalling": {}}}},
            }
        }
        (self.directory / "hosts.json").write_text(json.dumps(inventory))
        (self.directory / "play.yml").write_text(playbook)
        (self.directory / "vault-password").write_text("open sesame")
        (self.directory / "ansible.cfg").touch()
        return subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "--diff",
                f"--vault-password-file={self.directory}/vault-password",
                "-i",
                str(self.directory / "hosts.json"),
                str(self.directory / "play.yml"),
            ],
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
                "ANSIBLE_CONFIG": str(self.directory / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self) -> None:
        self._run("prosody", "prosody", "--config", str(self.directory / "prosody/prosody.cfg.lua"), "-F")
        self._run("turnserver", "turnserver", "-c", str(self.directory / "turnserver.conf"), "--pidfile=")
        for port in (self.xmpp_port, self.turn_port):
            self._await(port)

    def restart_turn(self) -> None:
        """Restart coturn, which reads its accounts at its start."""
        turn = self._servers.pop()
        turn.terminate()
        turn.wait(timeout=10)
        self._run("turnserver", "turnserver", "-c", str(self.directory / "turnserver.conf"), "--pidfile=")
        self._await(self.turn_port)

    def _run(self, user: str, *command: str) -> None:
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        with (self.directory / f"{command[0]}.log").open("wb") as log:
            self._servers.append(
                subprocess.Popen([*as_user, *command], stdout=log, stderr=log, cwd=self.directory / "run")
            )

    def _await(self, port: int) -> None:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            logs = "".join(path.read_text() for path in self.directory.glob("*.log"))
            assert time.monotonic() < deadline, logs
            assert all(server.poll() is None for server in self._servers), logs
            time.sleep(0.1)

    def reload_xmpp(self) -> None:
        """Reload prosody as systemd does, and wait until our module has taken over accounts and groups."""
        log = self.directory / "prosody.log"
        before = log.read_text().count("Accounts and groups were taken over")
        self._servers[0].send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while log.read_text().count("Accounts and groups were taken over") == before:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        for server in self._servers:
            server.terminate()
        for server in self._servers:
            server.wait(timeout=10)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory that the servers' users may read: pytest's own is closed to them."""
    path = Path(tempfile.mkdtemp(prefix="evx-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture(scope="module")
def site(directory: Path) -> Iterator[Site]:
    site = Site(directory)
    done = site.configure()
    assert done.returncode == 0, done.stdout
    assert "secret" not in done.stdout
    try:
        site.start()
        yield site
    finally:
        site.stop()


class Session:
    """The XMPP session of one node in one overlay."""

    def __init__(self, site: Site, username: str, password: str) -> None:
        self.local = username.partition("@")[0]
        plain = socket.create_connection(("127.0.0.1", site.xmpp_port), timeout=10)
        self._socket = plain
        self._open()
        self._say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed")
        trust = ssl.create_default_context(cafile=str(site.directory / "prosody/evio-pki/ca.crt"))
        self._socket = trust.wrap_socket(plain, server_hostname=DOMAIN)
        self._open()
        secret = base64.b64encode(f"\0{self.local}\0{password}".encode()).decode()
        answer = self._say(
            f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>", "</?(success|failure)"
        )
        self.is_in = "<success" in answer
        if self.is_in:
            self._open()
            self._ask("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>", "set")

    def roster(self) -> set[str]:
        return set(re.findall(r"jid='([^']+)'", self._ask("<query xmlns='jabber:iq:roster'/>", "get")))

    def appear(self, node_id: str = "") -> None:
        self._socket.sendall(f"<presence><status>ident#{node_id}</status></presence>".encode())

    def hear_presence(self, node_id: str) -> str:
        return self._read(f"<presence [^>]*>.*?ident#{node_id}<")

    def tell(self, to: str, text: str) -> None:
        self._socket.sendall(f"<message to='{to}' type='chat'><body>{text}</body></message>".encode())

    def hear(self, text: str) -> str:
        return self._read(f"<body>{text}</body>")

    def is_alive(self) -> bool:
        """Return whether the server answers a ping (XEP-0199)."""
        try:
            self._ask("<ping xmlns='urn:xmpp:ping'/>", "get")
        except (OSError, AssertionError):
            return False
        return True

    def close(self) -> None:
        self._socket.close()

    def _open(self) -> None:
        head = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' "
        self._say(head + f"xmlns:stream='http://etherx.jabber.org/streams' to='{DOMAIN}'>", "</stream:features>")

    def _ask(self, query: str, kind: str) -> str:
        return self._say(f"<iq type='{kind}' id='q'>{query}</iq>", "</iq>|<iq [^>]*/>")

    def _say(self, text: str, until: str) -> str:
        self._socket.sendall(text.encode())
        return self._read(until)

    def _read(self, until: str) -> str:
        answer = ""
        while not re.search(until, answer):
            block = self._socket.recv(65536)
            assert block, f"closed after {answer}"
            answer += block.decode()
        return answer


def sign_in(site: Site, node: str, overlay: str) -> Session:
    one = account(node, overlay)
    session = Session(site, one["username"], one["password"])
    assert session.is_in
    return session


def test_second_run_changes_nothing(site: Site) -> None:
    again = site.configure()
    assert re.search(r"signalling .*changed=0 ", again.stdout), again.stdout


def test_secrets_can_be_read_by_their_servers_only(site: Site) -> None:
    for path in ("turnserver.conf", "prosody/prosody.cfg.lua", "prosody/evio-pki/server.key"):
        assert (site.directory / path).stat().st_mode & 0o777 == 0o640, path
    files = list((site.directory / "data").rglob("*.dat"))
    assert len(files) == 2 * len(NODES)
    for path in files:
        assert path.stat().st_mode & 0o777 == 0o600
        assert "secret" not in path.read_text()


def test_files_that_a_killed_run_left_to_root_get_their_owner(site: Site) -> None:
    account_file = next((site.directory / "data").rglob("node1*pods.dat"))
    groups = site.directory / "prosody/evio-groups.txt"
    os.chown(account_file, 0, 0)
    os.chown(account_file.parent, 0, 0)
    os.chown(groups, 0, 0)
    assert site.configure().returncode == 0
    assert [one.owner() for one in (account_file, account_file.parent)] == ["prosody", "prosody"]
    assert groups.group() == "prosody"
    sign_in(site, "node1", "pods").close()


def test_nodes_of_an_overlay_find_each_other_only(site: Site) -> None:
    for overlay in ("host", "pods"):
        session = sign_in(site, "node1", overlay)
        try:
            assert session.roster() == {f"node2-{overlay}@{DOMAIN}"}
        finally:
            session.close()


def test_messages_are_delivered(site: Site) -> None:
    one, other = sign_in(site, "node1", "pods"), sign_in(site, "node2", "pods")
    try:
        other.appear()
        one.appear()
        one.tell(f"node2-pods@{DOMAIN}", "CreateTunnel")
        assert f"from='node1-pods@{DOMAIN}" in other.hear("CreateTunnel")
    finally:
        one.close()
        other.close()


@pytest.mark.parametrize(
    ("username", "password"),
    [(f"node1-pods@{DOMAIN}", "secret of node1 host"), (f"stranger@{DOMAIN}", "secret of node1 pods")],
)
def test_sign_in_without_account_is_refused(site: Site, username: str, password: str) -> None:
    session = Session(site, username, password)
    session.close()
    assert not session.is_in


def test_changed_password_and_removed_node_take_effect_at_once(site: Site) -> None:
    before = dict(site.nodes)
    try:
        changed = {**account("node2", "pods"), "password": "another secret"}
        site.nodes = {"node2": {**before["node2"], "evio_xmpp_pod_account": changed}}
        assert site.configure().returncode == 0
        old, new = account("node2", "pods"), changed
        assert not Session(site, old["username"], old["password"]).is_in
        assert Session(site, new["username"], new["password"]).is_in
        gone = account("node1", "pods")
        assert not Session(site, gone["username"], gone["password"]).is_in
    finally:
        site.nodes = before
        site.configure()


def test_leaving_node_loses_its_account_while_it_is_in_the_inventory(site: Site) -> None:
    sessions = [sign_in(site, "node1", overlay) for overlay in ("host", "pods")]
    other = sign_in(site, "node2", "pods")
    try:
        assert other.roster() == {f"node1-pods@{DOMAIN}"}
        assert site.configure("node1").returncode == 0
        left = [str(path.relative_to(site.directory / "data")) for path in (site.directory / "data").rglob("node1*")]
        assert left == []
        assert "node1" not in (site.directory / "prosody/evio-groups.txt").read_text()
        for overlay in ("host", "pods"):
            gone = account("node1", overlay)
            assert not Session(site, gone["username"], gone["password"]).is_in
        # Why the role reloads prosody: a session asks for no password any more.
        assert all(session.is_alive() for session in sessions)
        site.reload_xmpp()
        assert not any(session.is_alive() for session in sessions)
        # EdgeVPN.io's sessions on other nodes must outlive it: they would never come back.
        assert other.is_alive()
        assert other.roster() == set()
    finally:
        for session in (*sessions, other):
            session.close()
        site.configure()
        site.reload_xmpp()


def test_node_that_joins_is_seen_by_sessions_that_are_older_than_its_account(site: Site) -> None:
    before = dict(site.nodes)
    old = sign_in(site, "node1", "pods")
    new: Session | None = None
    try:
        old.appear("node1")
        site.nodes = {
            **before,
            "node3": {
                "evio_xmpp_host_account": account("node3", "host"),
                "evio_xmpp_pod_account": account("node3", "pods"),
            },
        }
        assert site.configure().returncode == 0
        site.reload_xmpp()
        assert f"node3-pods@{DOMAIN}" in old.roster()
        new = sign_in(site, "node3", "pods")
        assert new.roster() == {f"node1-pods@{DOMAIN}", f"node2-pods@{DOMAIN}"}
        new.appear("node3")
        # Each hears the other's presence, with which EdgeVPN.io tells its NodeId.
        assert "node3-pods" in old.hear_presence("node3")
        assert "node1-pods" in new.hear_presence("node1")
    finally:
        for session in filter(None, (old, new)):
            session.close()
        site.nodes = before
        site.configure()
        site.reload_xmpp()


def test_node_that_signed_in_before_the_reload_is_seen_after_it(site: Site) -> None:
    before = dict(site.nodes)
    old = sign_in(site, "node1", "pods")
    early: Session | None = None
    try:
        old.appear("node1")
        accounts = {
            "evio_xmpp_host_account": account("node4", "host"),
            "evio_xmpp_pod_account": account("node4", "pods"),
        }
        site.nodes = {**before, "node4": accounts}
        assert site.configure().returncode == 0
        # The account can be used at once, the groups not before the reload.
        early = sign_in(site, "node4", "pods")
        early.appear("node4")
        site.reload_xmpp()
        assert "node4-pods" in old.hear_presence("node4")
        assert "node1-pods" in early.hear_presence("node1")
    finally:
        for session in filter(None, (old, early)):
            session.close()
        site.nodes = before
        site.configure()
        site.reload_xmpp()


def test_two_nodes_with_one_account_are_refused_before_anything_is_changed(site: Site) -> None:
    before, files = dict(site.nodes), sorted(site.directory.rglob("*.dat"))
    try:
        site.nodes = {**before, "node3": before["node1"]}
        refused = site.configure()
        assert refused.returncode != 0
        assert "node1-host@xmpp.example is used twice" in refused.stdout
        assert "secret" not in refused.stdout
        assert sorted(site.directory.rglob("*.dat")) == files
    finally:
        site.nodes = before


# STUN (RFC 8489) and TURN (RFC 8656): types, attributes.
_BINDING, _ALLOCATE = 0x0001, 0x0003
_XOR_MAPPED, _USERNAME, _INTEGRITY, _ERROR, _REALM, _NONCE, _TRANSPORT = 0x20, 0x06, 0x08, 0x09, 0x14, 0x15, 0x19
_COOKIE = 0x2112A442


class Stun:
    """A STUN client with one UDP socket."""

    def __init__(self, site: Site) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", site.turn_port))

    def ask(self, kind: int, attributes: dict[int, bytes], key: bytes | None = None) -> tuple[int, dict[int, bytes]]:
        identifier = os.urandom(12)
        body = b"".join(_attribute(*one) for one in attributes.items())
        if key is not None:
            signed = struct.pack("!HHI", kind, len(body) + 24, _COOKIE) + identifier + body
            body += _attribute(_INTEGRITY, hmac.new(key, signed, "sha1").digest())
        self.socket.send(struct.pack("!HHI", kind, len(body), _COOKIE) + identifier + body)
        answer = self.socket.recv(2048)
        assert answer[8:20] == identifier
        found, at = {}, 20
        while at < len(answer):
            attribute, length = struct.unpack_from("!HH", answer, at)
            found[attribute] = answer[at + 4 : at + 4 + length]
            at += 4 + (length + 3 & ~3)
        return struct.unpack_from("!H", answer)[0], found

    def allocate(self, user: str, password: str) -> tuple[int, int]:
        """Ask for an allocation; return the type of the answer and its error code, 0 if there is no error."""
        wanted = {_TRANSPORT: b"\x11\0\0\0"}
        _kind, asked = self.ask(_ALLOCATE, wanted)
        known = {**wanted, _USERNAME: user.encode(), _REALM: asked[_REALM], _NONCE: asked[_NONCE]}
        key = hashlib.md5(f"{user}:{asked[_REALM].decode()}:{password}".encode()).digest()
        kind, answer = self.ask(_ALLOCATE, known, key)
        error = answer.get(_ERROR, b"\0\0\0\0")
        return kind, error[2] * 100 + error[3]


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + b"\0" * (-len(value) % 4)


def test_stun_returns_the_clients_address(site: Site) -> None:
    stun = Stun(site)
    with stun.socket:
        kind, answer = stun.ask(_BINDING, {})
        assert kind == 0x0101
        port, address = struct.unpack_from("!2xHI", answer[_XOR_MAPPED])
        seen = socket.inet_ntoa(struct.pack("!I", address ^ _COOKIE)), port ^ _COOKIE >> 16
        assert seen == stun.socket.getsockname()


def test_turn_refuses_other_accounts(site: Site) -> None:
    for user, password, kind, error in (
        ("evio", "turn secret", 0x0103, 0),
        ("evio", "wrong", 0x0113, 401),
        ("other", "x", 0x0113, 401),
    ):
        stun = Stun(site)
        with stun.socket:
            assert stun.allocate(user, password) == (kind, error), user


# Rotation of passwords


def open_vault(site: Site) -> dict[str, Any]:
    """Return what the file with the passwords holds."""
    command = [str(Path(sys.executable).with_name("ansible-vault")), "view", str(site.credentials)]
    vault = f"--vault-password-file={site.directory}/vault-password"
    told: dict[str, Any] = json.loads(subprocess.run([*command, vault], capture_output=True, check=True).stdout)
    return told


def signs_in(site: Site, node: str, password: str) -> bool:
    session = Session(site, f"{node}-pods@{DOMAIN}", password)
    session.close()
    return session.is_in


def test_passwords_are_rotated_node_by_node_and_nobody_is_locked_out(site: Site) -> None:
    first, second = (account(node, "pods")["password"] for node in NODES)
    session = sign_in(site, "node1", "pods")
    try:
        predicted = site.configure(playbook=MAKE_PASSWORDS.replace("tasks:", "check_mode: true\n  tasks:"))
        assert predicted.returncode == 0, predicted.stdout
        assert not site.credentials.exists()
        done = site.configure(playbook=MAKE_PASSWORDS)
        assert done.returncode == 0, done.stdout
        site.restart_turn()
        assert site.credentials.stat().st_mode & 0o777 == 0o600
        assert site.credentials.read_text().startswith("$ANSIBLE_VAULT;")
        held = open_vault(site)
        new = {name: entry["next_password"] for name, entry in held["xmpp"].items()}
        turn = held["turn"][site.turn["address"]]
        assert not any(secret in done.stdout for secret in (*new.values(), turn["account"]["password"]))
        # Nobody has another password yet, and TURN takes both accounts.
        assert signs_in(site, "node1", first)
        assert signs_in(site, "node2", second)
        for user, password in ((site.turn["user"], site.turn["password"]), tuple(turn["account"].values())):
            assert Stun(site).allocate(user, password)[1] == 0
        # The run is cut off after the first node. bootstrap.yml, and the next run, go on with what the file says.
        assert site.configure(playbook=GIVE_PASSWORDS.format(nodes="node1")).returncode == 0
        assert not signs_in(site, "node1", first)
        assert signs_in(site, "node1", new[f"node1-pods@{DOMAIN}"])
        assert signs_in(site, "node2", second)
        assert site.configure().returncode == 0
        assert signs_in(site, "node1", new[f"node1-pods@{DOMAIN}"])
        assert signs_in(site, "node2", second)
        assert site.configure(playbook=GIVE_PASSWORDS.format(nodes="node1,node2")).returncode == 0
        assert {name: entry.get("password") for name, entry in open_vault(site)["xmpp"].items()} == new
        assert signs_in(site, "node2", new[f"node2-pods@{DOMAIN}"])
        assert not signs_in(site, "node2", second)
        assert site.configure(playbook=FORGET_PASSWORDS).returncode == 0
        site.restart_turn()
        assert Stun(site).allocate(site.turn["user"], site.turn["password"])[1] == 401
        assert Stun(site).allocate(*turn["account"].values())[1] == 0
        # A session asks for no password any more.
        assert session.is_alive()
        again = site.configure()
        assert re.search(r"signalling .*changed=0 ", again.stdout), again.stdout
    finally:
        session.close()
        site.credentials.unlink(missing_ok=True)
        site.configure()
        site.restart_turn()


def test_file_of_passwords_that_cannot_be_read_stops_everything(site: Site) -> None:
    try:
        for content, words in (
            ("{", "it is damaged"),
            ('{"kind": "something else"}', "it is not a file of the passwords of evio.cni"),
            ("$ANSIBLE_VAULT;1.1;AES256\n6162", "passwords.vault"),
        ):
            site.credentials.write_text(content)
            for playbook in (MAKE_PASSWORDS, PLAYBOOK):
                refused = site.configure(playbook=playbook)
                assert refused.returncode != 0, content
                assert words in " ".join(refused.stdout.split()), refused.stdout
            assert site.credentials.read_text() == content
        assert signs_in(site, "node1", account("node1", "pods")["password"])
    finally:
        site.credentials.unlink(missing_ok=True)
