"""What runs in the private network of the integration tests: a DNS server, and PostgreSQL with one table."""

from __future__ import annotations

import os
import pwd
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset

#: Rows of the table `orders` that a job reads.
ORDERS = ((1001, "gate hinge"), (1002, "door latch"))


class PrivateNames(socketserver.BaseRequestHandler):
    """Answer, over UDP and TCP, for `NAME=ADDRESS` given at the start with A and RECORDS; anything else does not exist."""

    def handle(self) -> None:
        if isinstance(self.request, tuple):
            datagram, sock = self.request
            sock.sendto(self.answer(datagram), self.client_address)
            return
        with self.request.makefile("rb") as stream:
            while len(head := stream.read(2)) == 2:
                answer = self.answer(stream.read(int.from_bytes(head, "big")))
                self.request.sendall(len(answer).to_bytes(2, "big") + answer)

    def answer(self, datagram: bytes) -> bytes:
        query = dns.message.from_wire(datagram)
        question = query.question[0]
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA | dns.flags.AA
        name = question.name.to_text(omit_final_dot=True).lower()
        address, kind = NAMES.get(name), dns.rdatatype.to_text(question.rdtype)
        if name in REVERSE and kind == "PTR":
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "PTR", REVERSE[name]))
        elif address is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", "A", address))
        elif kind in RECORDS:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *RECORDS[kind]))
            if len(answer.to_wire(max_size=65_535)) > UDP_BYTES and isinstance(self.request, tuple):
                answer.answer.clear()
                answer.flags |= dns.flags.TC
        return answer.to_wire(max_size=65_535)


NAMES: dict[str, str] = {}
#: Reverse names of the addresses in NAMES, and the first name of each.
REVERSE: dict[str, str] = {}
#: What every name has beside its address; the texts are longer than fits into UDP.
RECORDS = {
    "MX": ["10 mail.private.internal."],
    "SRV": ["0 5 5432 db.private.internal."],
    "TXT": [f'"{number} {"x" * 200}"' for number in range(10)],
    "HTTPS": ["1 . alpn=h2 ipv4hint=198.18.7.7 ipv6hint=2001:db8::7"],
}
UDP_BYTES = 1232


def postgres_programs() -> Path | None:
    """Return the folder with initdb and postgres, or None where PostgreSQL's server is not installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return versions[-1].parent if versions else None


class PostgreSQL:
    """A PostgreSQL server on `address`:5432 for the user `reader` without a password, holding ORDERS."""

    def __init__(self, directory: Path, address: str, prefix: Sequence[str]) -> None:
        programs = postgres_programs()
        assert programs is not None
        self.programs = programs
        self.directory = directory
        self.address = address
        self.prefix = [*prefix, "setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]

    def command(self) -> list[str]:
        """Return the server's command line; makes the cluster first."""
        self.directory.mkdir()
        owner = pwd.getpwnam("postgres")
        os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        data = self.directory / "data"
        self._run(str(self.programs / "initdb"), "-D", str(data), "-U", "reader", "--auth=trust", "--no-sync")
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 trust\n")
        return [
            *self.prefix, str(self.programs / "postgres"), "-D", str(data),
            "-h", self.address, "-p", "5432", "-k", str(self.directory), "-c", "fsync=off",
        ]  # fmt: skip

    def fill(self) -> None:
        """Make the table `orders`; the server must be running."""
        rows = ",".join(f"({number}, '{item}')" for number, item in ORDERS)
        self._sql(f"create table orders (number int, item text); insert into orders values {rows}")

    def ready(self) -> bool:
        """Return whether the server answers a query."""
        try:
            self._sql("select 1")
        except subprocess.CalledProcessError:
            return False
        return True

    def _sql(self, text: str) -> None:
        psql = shutil.which("psql")
        assert psql is not None
        self._run(psql, "-h", str(self.directory), "-U", "reader", "-d", "postgres", "-qc", text)

    def _run(self, *command: str) -> None:
        subprocess.run([*self.prefix, *command], check=True, capture_output=True, cwd="/")


def main() -> None:
    """Serve DNS: python -m tests.integration.private_services ADDRESS NAME=ADDRESS..."""
    NAMES.update(pair.split("=", 1) for pair in sys.argv[2:])
    for name, address in reversed(NAMES.items()):
        REVERSE[dns.reversename.from_address(address).to_text(omit_final_dot=True)] = f"{name}."
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with (
        socketserver.ThreadingTCPServer((sys.argv[1], 53), PrivateNames) as stream,
        socketserver.ThreadingUDPServer((sys.argv[1], 53), PrivateNames) as server,
    ):
        threading.Thread(target=stream.serve_forever, daemon=True).start()
        server.serve_forever()


if __name__ == "__main__":
    main()
