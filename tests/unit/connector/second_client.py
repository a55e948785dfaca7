"""A client written from docs/reference/wire.md alone: it imports nothing of klinket, and blocks."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

OPEN, OPENED, FAIL, DATA, FIN, DATAGRAM, CONTROL = range(1, 8)
FLOW_PIPE, CONTROL_PIPE = 1, 2


def exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionError("the end, too early")
        data += more
    return data


def expand(secret: bytes, info: bytes) -> bytes:
    """HKDF-Expand of one block (RFC 5869 2.3)."""
    return hmac.digest(secret, info + b"\x01", "sha256")


class Admission:
    """Section 1: a ticket shown to a relay, then hellos."""

    def __init__(self, address: tuple[str, int], certificate_sha256: str, ticket: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["klinket-relay/1"])
        with context.wrap_socket(socket.create_connection(address, 10)) as tls:
            certificate = tls.getpeercert(binary_form=True)
            assert certificate is not None
            assert hashlib.sha256(certificate).hexdigest() == certificate_sha256
            tls.sendall(struct.pack(">H", len(ticket)) + ticket.encode("ascii"))
            answer = b""
            while len(answer) < 57:
                answer += tls.recv(57) or b"\0" * 57
        assert answer[0] == 1, answer
        self._address, self._id, self._key, self._counter = address, answer[1:17], answer[17:49], 0

    def connect(self, connector: int) -> socket.socket:
        """Return a connection that was joined with the connector's."""
        self._counter += 1
        sock = socket.create_connection(self._address, 10)
        said = struct.pack(">BB16sQQ", 1, 1, self._id, self._counter, connector)
        sock.sendall(said + hmac.digest(self._key, said, "sha256"))
        assert exactly(sock, 1) == b"\x01"
        return sock


class SecondLink:
    """Section 3: made on a joined connection, which it uses up."""

    def __init__(self, sock: socket.socket, certificate: Path, authority: Path, expected: str) -> None:
        assert exactly(sock, 33)[0] == 1  # the greeting is read and not used
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(authority)
        context.load_cert_chain(certificate)
        context.set_alpn_protocols(["klinket/1"])
        own = ssl.PEM_cert_to_DER_cert(certificate.read_text()[certificate.read_text().index("-----BEGIN CERT") :])
        with context.wrap_socket(sock) as tls:
            assert tls.selected_alpn_protocol() == "klinket/1"
            peer, names = tls.getpeercert(binary_form=True), tls.getpeercert()
            assert peer is not None
            assert names is not None
            assert names["subjectAltName"] == (("URI", expected),)
            random, key = os.urandom(32), MLKEM768PrivateKey.generate()
            tls.sendall(random + key.public_key().public_bytes_raw())
            answer = b""
            while len(answer) < 1136:
                more = tls.recv(1136 - len(answer))
                assert more
                answer += more
        shared = key.decapsulate(answer[32:1120])
        self.handle = answer[1120:]
        self.secret = hmac.digest(hashlib.sha256(own + peer).digest(), random + answer[:32] + shared, "sha256")


class _Chain:
    """Section 4: one direction's keys and counter."""

    def __init__(self, chain: bytes) -> None:
        self._chain, self._counter, self._frames, self._bytes = chain, 0, 0, 0
        self._ratchet()

    def _ratchet(self) -> None:
        self._key = AESGCM(expand(self._chain, b"key"))
        self._chain = expand(self._chain, b"ratchet")
        self._frames = self._bytes = 0

    def turn(self, data: bytes, length: bytes, *, seal: bool) -> bytes:
        nonce = bytes(4) + self._counter.to_bytes(8, "big")
        self._counter += 1
        made = (self._key.encrypt if seal else self._key.decrypt)(nonce, data, length)
        self._frames += 1
        self._bytes += int.from_bytes(length, "big")
        kind = data[-1] if seal else made[-1]
        if kind in (OPEN, OPENED) or self._frames >= 1 << 20 or self._bytes >= 16 << 30:
            self._ratchet()
        return made


class SecondPipe:
    """Section 4, on a joined connection."""

    def __init__(self, sock: socket.socket, link: SecondLink, purpose: int) -> None:
        greeting = exactly(sock, 33)
        assert greeting[0] == 1
        random = os.urandom(32)
        self.sock = sock
        self._prefix = bytes((1, purpose)) + link.handle + random
        root = expand(link.secret, b"klinket pipe" + bytes((1, purpose)) + link.handle + random + greeting[1:])
        self._mine, self._theirs = _Chain(expand(root, b"client")), _Chain(expand(root, b"connector"))

    def frame(self, kind: int, content: bytes = b"") -> bytes:
        """Return the next frame, with the hello in front of the first."""
        length = (len(content) + 17).to_bytes(4, "big")
        made = self._prefix + length + self._mine.turn(content + bytes((kind,)), length, seal=True)
        self._prefix = b""
        return made

    def send(self, kind: int, content: bytes = b"") -> None:
        self.sock.sendall(self.frame(kind, content))

    def receive(self) -> tuple[int, bytes]:
        length = exactly(self.sock, 4)
        plain = self._theirs.turn(exactly(self.sock, int.from_bytes(length, "big")), length, seal=False)
        return plain[-1], plain[:-1]

    def present(self, grant: str) -> dict[str, object]:
        """Section 5: present a grant; return the answer."""
        parts = [grant[at : at + 131_072] for at in range(0, len(grant), 131_072)]
        for number, part in enumerate(parts):
            message = {"type": "present-grant", "token": part, "part": number, "parts": len(parts)}
            self.send(CONTROL, json.dumps(message).encode())
        kind, content = self.receive()
        assert kind == CONTROL
        answer: dict[str, object] = json.loads(content)
        return answer

    def open(self, host: str, port: int, protocol: int = 6) -> tuple[int, bytes]:
        """Ask for a flow; return type and content of the answer."""
        said = struct.pack(">BBHQ16sB", protocol, 0, port, 0, os.urandom(16), len(host)) + host.encode("ascii")
        self.send(OPEN, said.ljust(511, b"\0"))
        return self.receive()
