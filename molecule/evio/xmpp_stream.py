"""An XML stream of XMPP under TLS (RFC 6120), with just enough to sign in and to read stanzas."""

from __future__ import annotations

import base64
import re
import socket
import ssl

_SASL = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"


class Stream:
    """One session of an account."""

    def __init__(self, host: str, port: int, username: str, password: str) -> None:
        """Sign in. Raises OSError if the server does not answer, or refuses."""
        local, _at, self._domain = username.partition("@")
        self._rest = ""
        self._socket: socket.socket = socket.create_connection((host, port), timeout=10)
        self._open()
        self._say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed[^>]*>")
        # Trusts the certificates of the file that SSL_CERT_FILE names, or else those of the system.
        self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=self._domain)
        self._open()
        secret = base64.b64encode(f"\0{local}\0{password}".encode()).decode()
        self._say(f"<auth {_SASL} mechanism='PLAIN'>{secret}</auth>", "<success")
        self._open()
        self._say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "</iq>")
        self._say("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>", "</iq>|<iq [^>]*/>")

    def send(self, text: str) -> None:
        """Send a text. Raises OSError."""
        self._socket.sendall(text.encode())

    def read_stanza(self) -> str:
        """Return the next presence or message. Raises OSError when the server ends the session."""
        return self._read("</presence>|<presence[^>]*/>|</message>|</iq>|<iq[^>]*/>", None)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _open(self) -> None:
        """Begin a stream, at the start and again after TLS and after authentication (RFC 6120, section 4.3.3)."""
        self._rest = ""
        head = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' "
        self._say(head + f"xmlns:stream='http://etherx.jabber.org/streams' to='{self._domain}'>", "</stream:features>")

    def _say(self, text: str, until: str) -> str:
        self.send(text)
        return self._read(until, 10)

    def _read(self, until: str, timeout: float | None) -> str:
        self._socket.settimeout(timeout)
        while not (found := re.search(f"{until}|<failure|</stream:stream>", self._rest)):
            block = self._socket.recv(65536)
            if not block:
                raise OSError("the server has closed the stream")
            self._rest += block.decode()
        text, self._rest = self._rest[: found.end()], self._rest[found.end() :]
        if found[0] in ("<failure", "</stream:stream>"):
            raise OSError("the server refuses, or has ended the session")
        return text
