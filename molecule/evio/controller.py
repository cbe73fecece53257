"""Stands for EdgeVPN.io's controller and tunnels on a node of the lab, where the real ones cannot be had.

What it makes of a config.json, the model says that was written down from runs of the real one. Bridges are made the way
the real one makes them, nodes find each other by XMPP with the accounts they were given, and Ethernet frames go by UDP,
unencrypted, between pairs of which one is public: enough to see that what the roles set up fits together.
"""

from __future__ import annotations

import base64
import fcntl
import ipaddress
import json
import os
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from evio_controller_model import Bridge, ControllerModel

START_SECONDS = 2.0
"""What the real one takes until it touches its bridges."""
FIRST_PORT = 33000
HELLO_SECONDS = 2.0
RETRY_SECONDS = 2.0

_PRIVATE = [ipaddress.ip_network(one) for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
"""linux/if_tun.h"""
_ID_LENGTH = 32


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    time.sleep(START_SECONDS)
    model = ControllerModel(config)
    for name in (model.waits_for(), *model.waits_for_others()):
        await_name(name)
    for bridge in model.bridges.values():
        make_bridge(bridge)
    overlays = [Overlay(model, overlay, FIRST_PORT + index) for index, overlay in enumerate(model.managed)]
    for overlay in overlays:
        overlay.patch()
        threading.Thread(target=overlay.carry, daemon=True).start()
        threading.Thread(target=overlay.signal, daemon=True).start()
    say("loaded")
    signal.pause()


def say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode != 0:
        say(f"{' '.join(command)}: {done.stderr.strip()}")


def await_name(name: str) -> None:
    while True:
        try:
            socket.getaddrinfo(name, None)
        except OSError as error:
            say(f"Check network failed: {name}: {error}")
            time.sleep(4)
        else:
            return


def make_bridge(bridge: Bridge) -> None:
    if not bridge.survives_restart:
        run("ovs-vsctl", "--timeout=5", "--if-exists", "del-br", bridge.name)
    make = ["--may-exist", "add-br", bridge.name, "--", "set", "Bridge", bridge.name, "datapath_type=netdev"]
    run("ovs-vsctl", "--timeout=5", *make)
    run("ip", "address", "flush", "dev", bridge.name, "label", bridge.name)
    if bridge.address:
        run("ip", "address", "add", bridge.address, "dev", bridge.name)
    run("ovs-vsctl", "--timeout=5", "set", "Interface", bridge.name, f"mtu_request={bridge.mtu}")
    run("ip", "link", "set", bridge.name, "up")


class Overlay:
    """One overlay: its session on the signalling server, and its tunnels."""

    def __init__(self, model: ControllerModel, overlay: str, port: int) -> None:
        self.model, self.id, self.port = model, overlay, port
        self.account: dict[str, Any] = model.config["Signal"]["Overlays"][overlay]
        self.node_id: str = model.config["Broker"]["NodeId"]
        device = model.config["BridgeController"]["Overlays"][overlay]["NetDevice"]
        self.mtu: int = device["MTU"]
        self.bridge, self.app_bridge = f"evi{overlay}", f"app{overlay}"
        self.packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.packets.bind(("", port))
        self.taps: dict[int, str] = {}
        self.remotes: dict[str, tuple[str, int]] = {}
        self.hellos: set[str] = set()
        self.wakeup, self._waker = os.pipe()

    def patch(self) -> None:
        """The two bridges are joined by a pair of patch ports."""
        for bridge, other in ((self.bridge, self.app_bridge), (self.app_bridge, self.bridge)):
            port, peer = f"pp-{bridge[:12]}", f"pp-{other[:12]}"
            settings = ["set", "Interface", port, "type=patch", f"options:peer={peer}"]
            run("ovs-vsctl", "--timeout=5", "--may-exist", "add-port", bridge, port, "--", *settings)

    def carry(self) -> None:
        """Frames from TAPs to UDP and back, each with its sender's NodeId before it."""
        own, last_hello = self.node_id.encode(), 0.0
        while True:
            if time.monotonic() - last_hello > HELLO_SECONDS:
                last_hello = time.monotonic()
                for peer in self.hellos:
                    self.packets.sendto(own, self.remotes[peer])
            ready, _, _ = select.select([self.packets, self.wakeup, *self.taps], [], [], HELLO_SECONDS)
            for one in ready:
                if one is self.packets:
                    data, source = self.packets.recvfrom(65535)
                    self._receive(data[:_ID_LENGTH].decode(errors="replace"), data[_ID_LENGTH:], source)
                elif one == self.wakeup:
                    os.read(self.wakeup, 1)
                else:
                    frame, remote = os.read(one, 65535), self.remotes.get(self.taps[one])
                    if remote is not None:
                        self.packets.sendto(own + frame, remote)

    def _receive(self, peer: str, frame: bytes, source: tuple[str, int]) -> None:
        tap = next((descriptor for descriptor, name in self.taps.items() if name == peer), None)
        if tap is not None:
            self.remotes[peer] = source
            if frame:
                os.write(tap, frame)

    def connect(self, peer: str, address: str, port: int) -> None:
        """A tunnel to a peer, if one of the two is public."""
        is_public, peer_is_public = not is_private(self._address()), not is_private(address)
        if peer in self.taps.values() or not (is_public or peer_is_public):
            return
        name = self.model.tap(self.id, peer)
        tap = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
        run("ip", "link", "set", name, "mtu", str(self.mtu), "up")
        run("ovs-vsctl", "--timeout=5", "--if-exists", "del-port", self.bridge, name)
        run("ovs-vsctl", "--timeout=5", "--may-exist", "add-port", self.bridge, name)
        if peer_is_public:
            self.remotes[peer] = (address, port)
            self.hellos.add(peer)
        self.taps[tap] = peer
        os.write(self._waker, b"x")
        say(f"Port {name} added to bridge {self.bridge}")

    def _address(self) -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((self.account["HostAddress"], 9))
            address: str = probe.getsockname()[0]
            return address

    def signal(self) -> None:
        while True:
            try:
                self._session()
            except (OSError, ValueError) as error:
                say(f"XMPP, overlay {self.id}: {error}")
            time.sleep(RETRY_SECONDS)

    def _session(self) -> None:
        """Sign in, say who we are, and answer who says the same: until the server ends it."""
        local, _at, domain = self.account["Username"].partition("@")
        stream = Stream(self.account["HostAddress"], int(self.account["Port"]), domain)
        secret = base64.b64encode(f"\0{local}\0{self.account['Password']}".encode()).decode()
        sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
        stream.say(f"<auth {sasl} mechanism='PLAIN'>{secret}</auth>", "<success")
        stream.open()
        stream.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>")
        stream.say("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>", "</iq>|<iq [^>]*/>")
        say(f"XMPP, overlay {self.id}: signed in")
        stream.send(f"<presence><status>ident#{self.node_id}</status></presence>")
        own = json.dumps({"node": self.node_id, "address": self._address(), "port": self.port})
        body = base64.b64encode(own.encode()).decode()
        while True:
            stanza = stream.read("</presence>|<presence[^>]*/>|</message>")
            sender = re.search(r"from='([^']+)'", stanza)
            if sender is None or self.node_id in stanza:
                continue
            if "<status>ident#" in stanza:
                stream.send(f"<message to='{sender[1]}' type='chat'><body>{body}</body></message>")
            elif found := re.search(r"<body>([^<]+)</body>", stanza):
                told = json.loads(base64.b64decode(found[1]))
                self.connect(told["node"], told["address"], told["port"])


class Stream:
    """An XML stream of XMPP under TLS (RFC 6120), as far as it takes to sign in and to hear stanzas."""

    def __init__(self, host: str, port: int, domain: str) -> None:
        self._domain, self._rest = domain, ""
        self._socket: socket.socket = socket.create_connection((host, port), timeout=10)
        self.open()
        self.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed[^>]*>")
        # What SSL_CERT_FILE names, or else what the system trusts.
        self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=domain)
        self.open()

    def open(self) -> None:
        self._rest = ""
        head = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' "
        self.say(head + f"xmlns:stream='http://etherx.jabber.org/streams' to='{self._domain}'>", "</stream:features>")

    def say(self, text: str, until: str) -> str:
        self.send(text)
        return self.read(f"{until}|<failure|</stream:stream>")

    def send(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def read(self, until: str) -> str:
        """Up to and with the pattern; keeps what came after it."""
        self._socket.settimeout(10 if "presence" not in until else None)
        while not (found := re.search(until, self._rest)):
            block = self._socket.recv(65536)
            if not block:
                raise OSError("the server has closed the stream")
            self._rest += block.decode()
        text, self._rest = self._rest[: found.end()], self._rest[found.end() :]
        if found[0] in ("<failure", "</stream:stream>"):
            raise OSError("the server refuses")
        return text


def is_private(address: str) -> bool:
    return any(ipaddress.ip_address(address) in network for network in _PRIVATE)


if __name__ == "__main__":
    main()
