"""A stand-in for EdgeVPN.io's controller on a node of the lab, where EdgeVPN.io's package is not available.

ControllerModel, which was written after runs of the real controller, says how it reads a config.json and what it does
in Open vSwitch. The stand-in makes the bridges, finds the other nodes by XMPP with the node's accounts, and opens
tunnels (tincan.py). Like the real controller it does not sign in again when it has lost its session, until it has
something to send; looks for missing tunnels by a timer; refuses a node to which it still has a tunnel; and leaves out a
node whose tunnel has died young.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evio_controller_model import (
    EXCLUSION_SECONDS,
    TINCAN_CHECK_SECONDS,
    YOUNG_TUNNEL_SECONDS,
    Bridge,
    ControllerError,
    ControllerExitError,
    ControllerModel,
    SwitchState,
)
from openflow_listener import listen
from xmpp_stream import Stream

START_SECONDS = 2.0
"""Seconds until the real controller changes its bridges."""

LOGS = Path("/var/log/evio")


def main() -> None:
    """Run the controller until SIGTERM: evio_controller.py -c FILE."""
    config = json.loads(Path(sys.argv[2]).read_text())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        model = ControllerModel(config)
    except ControllerExitError as error:
        sys.exit(str(error))
    except ControllerError as error:
        # The thread of one part has ended. The others live on, and so does the process.
        say(str(error))
        signal.pause()
        return
    open_logs(model)
    time.sleep(START_SECONDS)
    await_name(model.waits_for())
    for address, port in model.listens():
        listen(address, port)
    before = {overlay: switch_state(model, overlay) for overlay in model.managed}
    for bridge in model.bridges.values():
        make_bridge(bridge)
    overlays = [Overlay(model, overlay, before[overlay]) for overlay in model.managed]
    try:
        for overlay in overlays:
            overlay.patch()
            for work in (overlay.sign_in, overlay.keep_topology, overlay.check_tunnels):
                threading.Thread(target=work, daemon=True).start()
        say("loaded")
        signal.pause()
    finally:
        # A clean stop takes the tunnels' ports off the bridges; a kill leaves them.
        for overlay in overlays:
            overlay.stop()


def open_logs(model: ControllerModel) -> None:
    """Remove the logs of the last run, unless they are to be kept."""
    LOGS.mkdir(parents=True, exist_ok=True)
    for path in LOGS.iterdir() if model.empties_logs() else ():
        path.unlink()


def say(words: str) -> None:
    """Write a line to the service's log, and to the controller's own if its directory is there."""
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()
    if LOGS.is_dir():
        with (LOGS / "broker.log").open("a") as log:
            log.write(f"{time.strftime('%F %T')} {words}\n")


def run(*command: str, stdin: str = "") -> str:
    """Run a command, and log its errors if it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode != 0:
        say(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def vsctl(*arguments: str) -> str:
    """Run ovs-vsctl."""
    return run("ovs-vsctl", "--timeout=5", *arguments)


def await_name(name: str) -> None:
    """Wait until the name resolves."""
    while True:
        try:
            socket.getaddrinfo(name, None)
        except OSError as error:
            say(f"Check network failed: {name}: {error}")
            time.sleep(4)
        else:
            return


def switch_state(model: ControllerModel, overlay: str) -> SwitchState:
    """Return what Open vSwitch has for the overlay's bridge."""
    name = f"evi{overlay}"[:15]
    if name not in vsctl("list-br").splitlines() or not model.bridges[name].survives_restart:
        return SwitchState()
    controllers = tuple(vsctl("get-controller", name).split())
    return SwitchState(vsctl("get", "Bridge", name, "stp_enable") == "true", controllers)


def make_bridge(bridge: Bridge) -> None:
    """Make one bridge with its address, MTU and switch protocol; flush its other IPv4 addresses."""
    if not bridge.survives_restart:
        vsctl("--if-exists", "del-br", bridge.name)
    vsctl("--may-exist", "add-br", bridge.name, "--", "set", "Bridge", bridge.name, "datapath_type=netdev")
    run("ip", "address", "flush", "dev", bridge.name, "label", bridge.name)
    if bridge.address:
        run("ip", "address", "add", bridge.address, "dev", bridge.name)
    vsctl("set", "Interface", bridge.name, f"mtu_request={bridge.mtu}")
    for command in bridge.sets:
        vsctl(*command)
    run("ip", "link", "set", bridge.name, "up")


class Tunnel:
    """A tunnel's process, and what it has told."""

    def __init__(self, name: str, arguments: list[str], on_event: Callable[[Tunnel, str], None]) -> None:
        """Start the process. ``arguments`` are those of tincan.py after the TAP's name."""
        self.name, self.born = name, time.monotonic()
        self.is_connected = False
        self._process = subprocess.Popen(
            [sys.executable, "-B", str(Path(__file__).with_name("tincan.py")), name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        _at, self.address, self.port = self._line().split()
        threading.Thread(target=self._listen, args=(on_event,), daemon=True).start()

    def connect(self, address: str, port: str) -> None:
        """Tell the process where the other end is."""
        if self._process.stdin is not None and self._process.poll() is None:
            self._process.stdin.write(f"peer {address} {port}\n")
            self._process.stdin.flush()

    @property
    def is_dead(self) -> bool:
        """Whether its process has ended."""
        return self._process.poll() is not None

    def end(self) -> None:
        """End its process, and with it the TAP."""
        self._process.terminate()
        self._process.wait(timeout=10)

    def _line(self) -> str:
        return self._process.stdout.readline() if self._process.stdout is not None else ""

    def _listen(self, on_event: Callable[[Tunnel, str], None]) -> None:
        while line := self._line().strip():
            on_event(self, line)


class Overlay:
    """One overlay with its session on the signalling server and its tunnels."""

    def __init__(self, model: ControllerModel, overlay: str, before: SwitchState) -> None:
        self.model, self.id, self.before = model, overlay, before
        self.account: dict[str, Any] = model.config["Signal"]["Overlays"][overlay]
        self.node_id: str = model.config["Broker"]["NodeId"]
        device = model.config["BridgeController"]["Overlays"][overlay]["NetDevice"]
        self.mtu: int = device["MTU"]
        self.bridge, self.app_bridge = f"evi{overlay}"[:15], f"app{overlay}"[:15]
        self.stream: Stream | None = None
        self.is_signing_in = True
        self.tunnels: dict[str, Tunnel] = {}
        self.known: dict[str, str] = {}
        self.excluded_until: dict[str, float] = {}
        self.lock = threading.RLock()

    def patch(self) -> None:
        """Join the overlay's two bridges by a pair of patch ports."""
        for bridge, other in ((self.bridge, self.app_bridge), (self.app_bridge, self.bridge)):
            port, peer = f"pp-{bridge[:12]}", f"pp-{other[:12]}"
            settings = ["set", "Interface", port, "type=patch", f"options:peer={peer}"]
            vsctl("--may-exist", "add-port", bridge, port, "--", *settings)

    def switch(self) -> None:
        """Program the bridge: nothing passes where two protocols are in each other's way.

        A switch forgets its flows when it has been without a controller, so this is repeated.
        """
        flows = [] if self.model.protocol(self.id) == "STP" else ["priority=1,actions=NORMAL"]
        if not self.model.carries_ipv6(self.id):
            flows += [
                "priority=100,dl_dst=33:33:00:00:00:00/ff:ff:00:00:00:00,actions=drop",
                "priority=100,ip,nw_dst=224.0.0.0/24,actions=drop",
            ]
        if not self.model.forwards(self.id, 2, self.before):
            flows = ["priority=65535,actions=drop"]
        run("ovs-ofctl", "--timeout=5", "add-flows", self.bridge, "-", stdin="\n".join(flows) + "\n")

    def sign_in(self) -> None:
        """Sign in and listen until the session ends. Nothing but send() calls this again."""
        await_name(self.account["HostAddress"])
        try:
            stream = self._signed_in()
            while True:
                self._hear(stream.read_stanza())
        except (OSError, ValueError) as error:
            # The event loop of the real controller is closed now, and nobody looks.
            say(f"XMPP, overlay {self.id}: disconnected: {error}")
            self.stream, self.is_signing_in = None, False

    def _signed_in(self) -> Stream:
        while True:
            try:
                account = self.account
                stream = Stream(account["HostAddress"], int(account["Port"]), account["Username"], account["Password"])
                break
            except OSError as error:
                # The library of the real controller tries again until it is connected for the first time.
                say(f"XMPP, overlay {self.id}: {error}")
                time.sleep(2)
        say(f"XMPP, overlay {self.id}: signed in")
        stream.send(f"<presence><status>ident#{self.node_id}</status></presence>")
        self.stream = stream
        return stream

    def _send(self, jid: str, **content: Any) -> None:
        """Send to another node. Without a session the message is lost, and the controller signs in again."""
        told = {"node": self.node_id, **content}
        body = base64.b64encode(json.dumps(told).encode()).decode()
        if self.stream is None:
            say(f"XMPP, overlay {self.id}: Event loop is closed")
            if not self.is_signing_in:
                self.is_signing_in = True
                threading.Thread(target=self.sign_in, daemon=True).start()
            return
        try:
            self.stream.send(f"<message to='{jid}' type='chat'><body>{body}</body></message>")
        except OSError as error:
            say(f"XMPP, overlay {self.id}: {error}")

    def _hear(self, stanza: str) -> None:
        sender = re.search(r"from='([^']+)'", stanza)
        if sender is None or self.node_id in stanza or "type='unavailable'" in stanza:
            return
        if found := re.search(r"<status>ident#([0-9a-f]{32})</status>", stanza):
            with self.lock:
                self.known[found[1]] = sender[1]
                self.excluded_until.pop(found[1], None)
        elif found := re.search(r"<body>([^<]+)</body>", stanza):
            told = json.loads(base64.b64decode(found[1]))
            with self.lock:
                self.known.setdefault(told["node"], sender[1])
                self._negotiate(sender[1], told)

    def _negotiate(self, sender: str, told: dict[str, Any]) -> None:
        """Take one of the three messages that make a tunnel. No end has a TAP before the other has agreed."""
        peer, tunnel = told["node"], self.tunnels.get(told["node"])
        if tunnel is not None and tunnel.is_connected:
            say(f"overlay {self.id}: {told['kind']} of {peer[:7]} refused: there is a tunnel")
            return
        if tunnel is None and told["kind"] == "confirm":
            return
        tunnel = tunnel or self._open(peer)
        if told["kind"] != "request":
            tunnel.connect(told["address"], told["port"])
        if told["kind"] != "confirm":
            answer = {"request": "accept", "accept": "confirm"}[told["kind"]]
            self._send(sender, kind=answer, address=tunnel.address, port=tunnel.port)

    def keep_topology(self) -> None:
        """Ask for missing tunnels, by the timer, for ever."""
        while True:
            self.switch()
            time.sleep(self.model.topology_seconds())
            with self.lock:
                for peer, address in self.known.items():
                    if peer in self.tunnels or time.monotonic() < self.excluded_until.get(peer, 0.0):
                        continue
                    self._send(address, kind="request")

    def check_tunnels(self) -> None:
        """Clean up after tunnels whose process was ended, and those that never came up, for ever."""
        while True:
            time.sleep(TINCAN_CHECK_SECONDS)
            with self.lock:
                for peer, tunnel in list(self.tunnels.items()):
                    is_stillborn = not tunnel.is_connected and time.monotonic() - tunnel.born > TINCAN_CHECK_SECONDS
                    if tunnel.is_dead or is_stillborn:
                        self._remove(peer)

    def stop(self) -> None:
        """Take all tunnels down."""
        with self.lock:
            for peer in list(self.tunnels):
                self._remove(peer)

    def _open(self, peer: str) -> Tunnel:
        name = self.model.tap(self.id, peer)
        # Short, because it is in each packet.
        tunnel_id = hashlib.sha256(f"{sorted((self.node_id, peer))} {self.id}".encode()).hexdigest()[:8]
        stun: list[str] = self.model.config["LinkManager"].get("Stun", [])
        arguments = [str(self.mtu), tunnel_id, self._address(), *stun[:1]]
        tunnel = Tunnel(name, arguments, lambda tunnel, event: self._event(peer, tunnel, event))
        self.tunnels[peer] = tunnel
        return tunnel

    def _event(self, peer: str, tunnel: Tunnel, event: str) -> None:
        with self.lock:
            if self.tunnels.get(peer) is not tunnel:
                return
            if event == "connected":
                tunnel.is_connected = True
                vsctl("--if-exists", "del-port", self.bridge, tunnel.name)
                # The tunnels between all nodes are a loop. BoundedFlood brings a broadcast to each node once; here the
                # switch does that, because it passes nothing from one protected port to another.
                is_protected = str(self.model.protocol(self.id) == "BF").lower()
                vsctl(
                    *("--may-exist", "add-port", self.bridge, tunnel.name),
                    *("--", "set", "Port", tunnel.name, f"protected={is_protected}"),
                )
                say(f"Port {tunnel.name} added to bridge {self.bridge}")
            elif event == "lost":
                if time.monotonic() - tunnel.born < YOUNG_TUNNEL_SECONDS:
                    pause = random.uniform(*EXCLUSION_SECONDS)
                    say(f"overlay {self.id}: {peer[:7]} is left out for {pause:.0f} s")
                    self.excluded_until[peer] = time.monotonic() + pause
                self._remove(peer)

    def _remove(self, peer: str) -> None:
        tunnel = self.tunnels.pop(peer)
        vsctl("--if-exists", "del-port", self.bridge, tunnel.name)
        tunnel.end()

    def _address(self) -> str:
        """Return the node's own address on the way to the signalling server."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((self.account["HostAddress"], 9))
            address: str = probe.getsockname()[0]
            return address


if __name__ == "__main__":
    main()
