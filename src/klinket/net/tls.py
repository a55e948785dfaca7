"""TLS over a raw non-blocking socket, and certificates for it without files on disk."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
import tempfile

#: Bytes read from the socket at once.
READ_BYTES = 65_536


#: OpenSSL's reasons for a handshake that found no common version: told by the other end, or by its answer.
_NO_COMMON_VERSION = {"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION"}
TLS_TOO_OLD = (
    "klinket's own parts speak TLS 1.3 only: have the gateway in front of the controller offer it, or pass connections through"
)


def is_too_old(error: BaseException | None) -> bool:
    """Return whether a handshake failed since the other end has no TLS 1.3, as a gateway that ends TLS itself may not."""
    return isinstance(error, ssl.SSLError) and error.reason in _NO_COMMON_VERSION


def certificate_digest(der: bytes) -> str:
    """Return the SHA-256 of a certificate in DER, in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def load_identity(context: ssl.SSLContext, certificate_pem: str, key_pem: str) -> None:
    """Load certificate and key into a context; ssl takes only files, so they pass through memory that is no disk."""
    text = (certificate_pem + "\n" + key_pem).encode()
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, text)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    # Windows: a private temporary file for the moment of the call.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "identity.pem")  # noqa: PTH118
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
        context.load_cert_chain(path)


class TlsStream:
    """A TLS connection on a raw socket, for short exchanges. The socket stays the caller's."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        received: bytes = b"",
        server_name: str | None = None,
    ) -> None:
        """`received`: bytes of the peer that were read already, for example to tell TLS from other protocols.

        `server_name`: sent by a client, in the clear; nothing is verified by it.
        """
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name)
        if received:
            self._incoming.write(received)

    async def handshake(self) -> None:
        """Complete the handshake; raises ssl.SSLError or ConnectionError."""
        try:
            while True:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._fill()
                else:
                    await self._flush()
                    return
        except ssl.SSLError:
            await self._flush()  # the alert tells the peer why
            raise

    @property
    def peer_certificate(self) -> bytes:
        """Return the peer's leaf certificate in DER; raises ssl.SSLError when there is none."""
        leaf = self._tls.getpeercert(binary_form=True)
        if not leaf:
            raise ssl.SSLError("the peer showed no certificate")
        return leaf

    @property
    def protocol(self) -> str | None:
        """Return the ALPN protocol that was agreed."""
        return self._tls.selected_alpn_protocol()

    async def write(self, data: bytes) -> None:
        """Send all of `data`."""
        self._tls.write(data)
        await self._flush()

    async def read_exactly(self, count: int) -> bytes:
        """Return exactly `count` bytes; raises ConnectionError when the peer ends before."""
        data = b""
        while len(data) < count:
            try:
                more = self._tls.read(count - len(data))
            except ssl.SSLWantReadError:
                await self._fill()
                continue
            if not more:
                raise ConnectionResetError("the peer closed the TLS connection")
            data += more
        return data

    async def close(self) -> None:
        """Say goodbye (close_notify) without waiting for the peer's."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass
        try:
            await self._flush()
        except OSError:
            pass

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def _fill(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._sock, READ_BYTES)
        if not data:
            self._incoming.write_eof()
            raise ConnectionResetError("the peer closed the connection during TLS")
        self._incoming.write(data)
