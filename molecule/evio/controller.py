"""A stand-in for EdgeVPN.io's controller and tunnels on a node of the lab, where EdgeVPN.io's package is not available.

ControllerModel, which was written after runs of the real controller, says how it reads a config.json. Like the real
controller, the stand-in makes the bridges and finds the other nodes by XMPP with the node's accounts. Its tunnels carry
Ethernet frames in UDP, unencrypted, between two nodes if one of them is public: enough to test the roles.
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
"""Seconds until the real controller changes its bridges."""
FIRST_PORT = 33000
"""UDP port of the first overlay's tunnels; the next overlay has the next port."""
HELLO_SECONDS = 2.0
"""Interval of the packets that keep NAT mappings open."""
RETRY_SECONDS = 2.0
"""Pause before a new session on the signalling server."""

_PRIVATE = [ipaddress.ip_network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
"""linux/if_tun.h"""

_ID_LENGTH = 32
"""Characters of a NodeId."""


def main() -> None:
    """Run the controller on the configuration file that the command line names, until SIGTERM."""
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
    """Write a line to the service's log."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def run(*command: str) -> None:
    """Run a command, and log its errors if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode != 0:
        say(f"{' '.join(command)}: {done.stderr.strip()}")


def await_name(name: str) -> None:
    """Wait until the name resolves, as the real controller does before it makes bridges."""
    while True:
        try:
            socket.getaddrinfo(name, None)
        except OSError as error:
            say(f"Check network failed: {name}: {error}")
            time.sleep(4)
        else:
            return


def make_bridge(bridge: Bridge) -> None:
    """Make one bridge with its address and MTU; flush its other IPv4 addresses."""
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
    """One overlay with its session on the signalling server and its tunnels."""

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
        """Join the overlay's two bridges by a pair of patch ports."""
        for bridge, other in ((self.bridge, self.app_bridge), (self.app_bridge, self.bridge)):
            port, peer = f"pp-{bridge[:12]}", f"pp-{other[:12]}"
            settings = ["set", "Interface", port, "type=patch", f"options:peer={peer}"]
            run("ovs-vsctl", "--timeout=5", "--may-exist", "add-port", bridge, port, "--", *settings)

    def carry(self) -> None:
        """Carry frames between TAP devices and UDP for ever. Each packet begins with the NodeId of its sender."""
        own, last_hello = self.node_id.encode(), 0.0
        while True:
            if time.monotonic() - last_hello > HELLO_SECONDS:
                last_hello = time.monotonic()
                for peer in self.hellos:
                    self.packets.sendto(own, self.remotes[peer])
            ready, _, _ = select.select([self.packets, self.wakeup, *self.taps], [], [], HELLO_SECONDS)
            for source in ready:
                if source is self.packets:
                    data, sender = self.packets.recvfrom(65535)
                    self._receive(data[:_ID_LENGTH].decode(errors="replace"), data[_ID_LENGTH:], sender)
                elif source == self.wakeup:
                    os.read(self.wakeup, 1)
                else:
                    frame, remote = os.read(source, 65535), self.remotes.get(self.taps[source])
                    if remote is not None:
                        self.packets.sendto(own + frame, remote)

    def _receive(self, peer: str, frame: bytes, sender: tuple[str, int]) -> None:
        tap = next((descriptor for descriptor, name in self.taps.items() if name == peer), None)
        if tap is not None:
            self.remotes[peer] = sender
            if frame:
                os.write(tap, frame)

    def connect(self, peer: str, address: str, port: int) -> None:
        """Make a tunnel to a peer, if this node or the peer is public."""
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
        """Keep a session on the signalling server open for ever."""
        while True:
            try:
                self._session()
            except (OSError, ValueError) as error:
                say(f"XMPP, overlay {self.id}: {error}")
            time.sleep(RETRY_SECONDS)

    def _session(self) -> None:
        """Sign in, announce this node, and exchange tunnel addresses with the others, until the server ends it."""
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
    """An XML stream of XMPP under TLS (RFC 6120), with just enough to sign in and to read stanzas."""

    def __init__(self, host: str, port: int, domain: str) -> None:
        self._domain, self._rest = domain, ""
        self._socket: socket.socket = socket.create_connection((host, port), timeout=10)
        self.open()
        self.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed[^>]*>")
        # Trusts the certificates of the file that SSL_CERT_FILE names, or else those of the system.
        self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=domain)
        self.open()

    def open(self) -> None:
        """Begin a stream, at the start and again after TLS and after authentication (RFC 6120, section 4.3.3)."""
        self._rest = ""
        head = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' "
        self.say(head + f"xmlns:stream='http://etherx.jabber.org/streams' to='{self._domain}'>", "</stream:features>")

    def say(self, text: str, until: str) -> str:
        """Send a text, and return the answer up to the pattern; OSError if the server refuses."""
        self.send(text)
        return self.read(f"{until}|<failure|</stream:stream>")

    def send(self, text: str) -> None:
        """Send a text."""
        self._socket.sendall(text.encode())

    def read(self, until: str) -> str:
        """Return the received text up to the end of the pattern, and keep the rest; OSError if the server refuses."""
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
    """Return whether the address is in a private IPv4 network (RFC 1918)."""
    return any(ipaddress.ip_address(address) in network for network in _PRIVATE)


if __name__ == "__main__":
    main()
