"""A daemon in a network of its own, and behind a connector what unmodified programs talk to."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.deployment import Deployment, clean_environment
from tests.integration.daemon_commands import DaemonCommands
from tests.integration.private_services import PostgreSQL
from tests.integration.topology import CLIENT, HIDDEN, PRIVATE, PUBLIC, Topology

ROOT = Path(__file__).parents[2]
#: Programs the services are, by their Debian packages.
NEEDED = {"redis-server": "redis-server", "nginx": "nginx-light", "sshd": "openssh-server", "iperf3": "iperf3", "git": "git"}
#: Of the capabilities of root, those that the systemd unit leaves.
CAPABILITIES = "-all,+net_admin,+net_raw,+net_bind_service"
NAME, ALIAS, WILD = "box.corp.internal", "box.alias.internal", "any.wild.internal"
#: How each kind of resource is reached: a name, an alias, an address that is a resource, one in a range that is.
WAYS = {"name": NAME, "alias": ALIAS, "wildcard": WILD, "ip": PRIVATE, "cidr": HIDDEN}
SSH_PORT, REDIS_PORT, HTTP_PORT, HTTPS_PORT, IPERF_PORT, MANY_PORT = 2222, 6379, 8080, 8443, 5201, 7300
#: Flows at a time. A relay gives one session a third of its pairs: what its own files and those of its workers allow.
MANY = 2000 if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 16_384 else 600
WHERE = {"controller": "middle", "admin": "middle"} | dict.fromkeys(
    ("dns", "postgresql", "redis", "nginx", "sshd", "many", f"iperf3 {PRIVATE}", f"iperf3 {HIDDEN}"), "services"
)


def missing_programs() -> list[str]:
    """Return the packages that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [package for program, package in NEEDED.items() if shutil.which(program, path=path) is None]


@dataclass
class World:
    """`daemon`: the daemon's commands, run with what the systemd unit leaves; `home`: of the user programs run as."""

    topology: Topology
    deployment: Deployment
    key: Path
    home: Path
    daemon: DaemonCommands

    def program(self, *command: str, timeout: float = 60, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the machine, as root, unmodified and without any setting of klinket's."""
        return subprocess.run(
            [*self.topology.prefix("client"), *command],
            capture_output=True, text=True, timeout=timeout, cwd="/", input=given if given is not None else "",
            env={**clean_environment(), "HOME": str(self.home), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        )  # fmt: skip

    def prints(self, *command: str, timeout: float = 60) -> str:
        """Return what a program prints; fails where it does."""
        done = self.program(*command, timeout=timeout)
        assert done.returncode == 0, (done.args[3:], done.returncode, done.stdout[-500:], done.stderr[-1500:], self.daemon.tail())
        return done.stdout


@contextmanager
def daemon_world() -> Iterator[World]:
    """Start everything but the daemon."""
    directory = Path(tempfile.mkdtemp(prefix="klinket-programs-"))
    directory.chmod(0o755)
    try:
        with Topology(directory) as topology:

            def enter(part: str) -> Sequence[str]:
                return topology.prefix(WHERE.get(part, "private"))

            with Deployment(directory, address=PUBLIC, network="acme", enter=enter) as deployment:
                key = _build(deployment, topology, directory)
                limited = ["setpriv", f"--bounding-set={CAPABILITIES}", "--inh-caps=-all", "--no-new-privs"]
                daemon = DaemonCommands(directory / "daemon", [*topology.prefix("client"), *limited])
                yield World(topology, deployment, key, directory / "home", daemon)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _build(deployment: Deployment, topology: Topology, directory: Path) -> Path:
    (directory / "daemon").mkdir()
    _start_services(deployment, topology, directory)
    deployment.start_controller()
    deployment.admin("network", "create", "corp")
    deployment.add_connector("corp", "corp-1")
    for name, address, *options in (
        ("Box", NAME, "--alias", ALIAS),
        ("Wild", "*.wild.internal"),
        ("Address", PRIVATE),
        ("Range", "10.91.3.0/24"),
    ):
        deployment.admin("resource", "create", "--network", "corp", "--address", address, *options, name)
    deployment.start_connector("corp-1")
    deployment.admin("service", "create", "ci")
    for name in ("Box", "Wild", "Address", "Range"):
        deployment.admin("service", "grant", "ci", name)
    return deployment.add_key("ci", "runner")


def _start_services(deployment: Deployment, topology: Topology, directory: Path) -> None:
    names = [f"{name}={PRIVATE}" for name in (NAME, WILD)]
    deployment.start("dns", [sys.executable, "-m", "tests.integration.private_services", PRIVATE, *names], PYTHONPATH=str(ROOT))
    database = PostgreSQL(directory / "postgresql", "0.0.0.0", topology.prefix("services"))
    part = deployment.start("postgresql", database.command()[len(topology.prefix("services")) :])
    redis = ["redis-server", "--bind", "0.0.0.0", "--port", str(REDIS_PORT), "--protected-mode", "no", "--save", ""]
    deployment.start("redis", redis, PATH=_path())
    deployment.start("nginx", ["nginx", "-c", str(_nginx(directory)), "-p", str(directory)], PATH=_path())
    sshd = shutil.which("sshd", path=_path())
    assert sshd is not None
    deployment.start("sshd", [sshd, "-D", "-e", "-f", str(_sshd(directory))])
    many = ["prlimit", "--nofile=8192", sys.executable, "-m", "tests.integration.many_flows", "serve", str(MANY_PORT)]
    deployment.start("many", many, PYTHONPATH=str(ROOT))
    for address in (PRIVATE, HIDDEN):  # one each: over UDP it answers from its own address only where it is bound to it
        deployment.start(f"iperf3 {address}", ["iperf3", "-s", "-B", address, "-p", str(IPERF_PORT)])
    deployment.wait_for("PostgreSQL", database.ready, part)
    database.fill()


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _nginx(directory: Path) -> Path:
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "web-ca.pem"))
    authority.issue_cert(*WAYS.values()).private_key_and_cert_chain_pem.write_to_path(str(directory / "web.pem"))
    files = directory / "web"
    files.mkdir()
    (files / "hello.txt").write_text("behind the gate\n")
    with (files / "big").open("wb") as big:
        for _ in range(64):
            big.write(os.urandom(1 << 20))
    path = directory / "nginx.conf"
    path.write_text(
        f"daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx-error.log; user root;\n"
        "events { worker_connections 256; }\n"
        f"http {{ access_log off; client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path"
        f" {directory}/t3; uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5; root {files};\n"
        f"server {{ listen {HTTP_PORT}; }}\n"
        f"server {{ listen {HTTPS_PORT} ssl http2;\n"
        f"ssl_certificate {directory}/web.pem; ssl_certificate_key {directory}/web.pem; }}\n"
        "}\n"
    )
    return path


def _sshd(directory: Path) -> Path:
    home = directory / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    for key in (home / ".ssh" / "id_ed25519", directory / "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (directory / "authorized").write_text((home / ".ssh" / "id_ed25519.pub").read_text())
    (directory / "authorized").chmod(0o600)
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own empty folder, which its package makes at boot
    path = directory / "sshd_config"
    path.write_text(
        f"Port {SSH_PORT}\nHostKey {directory}/host_key\nAuthorizedKeysFile {directory}/authorized\nPidFile none\nUsePAM no\n"
        "StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    subprocess.run(["git", "init", "-q", "--bare", str(directory / "repository.git")], check=True)
    work = directory / "work"
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    (work / "readme").write_text("cloned\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "safe.directory=*"]
    for command in (["add", "."], ["commit", "-qm", "one"], ["push", "-q", str(directory / "repository.git"), "HEAD:main"]):
        subprocess.run(["git", "-C", str(work), *identity, *command], check=True)
    subprocess.run(["git", "-C", str(directory / "repository.git"), "symbolic-ref", "HEAD", "refs/heads/main"], check=True)
    return path


__all__ = ["CLIENT", "World", "daemon_world", "missing_programs"]
