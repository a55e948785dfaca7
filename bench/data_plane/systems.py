"""What is compared: each way from the client's namespace to the server's, with real programs and authentication as in earnest."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.data_plane.topology import CLIENT, MIDDLE_SERVER, PORT, PRIVATE, SERVER, Topology, sh
from examples.deployment import Deployment

#: Seconds a way may take until it carries the first byte.
READY_SECONDS = 30.0
LOCAL = "127.0.0.1"
#: What a service account may open: the data plane is measured, not its limit.
NEW_FLOWS_PER_SECOND = 100_000
#: What listens on the client for tunnels of single ports.
TUNNEL_PORT = 17_000


@dataclass(kw_only=True)
class Way:
    """How the load is sent: to `host` and `ports` (echo, sink, source), or through a SOCKS5 proxy; `prefix`: commands in front.

    `pids`: the processes whose CPU time and memory count, with their children; none where the kernel does it.
    """

    name: str
    host: str
    ports: tuple[int, int, int] = (PORT, PORT + 1, PORT + 2)
    socks: int | None = None
    prefix: list[str] = field(default_factory=list)
    pids: list[int] = field(default_factory=list)
    carries_datagrams: bool = False
    #: May be needed to end it apart from the topology.
    close: Callable[[], None] = lambda: None


def plain(topology: Topology) -> Way:
    """No tunnel: the limit."""
    return Way(name="plain TCP", host=SERVER, carries_datagrams=True)


def wireguard_go(topology: Topology) -> Way:
    """Two wireguard-go processes, point to point."""
    keys = {role: sh("wg", "genkey").strip() for role in ("client", "server")}
    public = {role: sh("wg", "pubkey", text=key).strip() for role, key in keys.items()}
    ends = {"client": ("10.94.0.1", "server", SERVER), "server": ("10.94.0.2", "client", CLIENT)}
    pids = []
    for role, (own, peer, where) in ends.items():
        device = f"wg{role[0]}{os.getpid() % 100000}"  # its control socket is named so, for all namespaces
        pids.append(topology.start(role, "wireguard-go", "-f", device, log="wireguard-go").pid)
        _until(partial(_has_device, topology, role, device), "wireguard-go")
        key = topology.directory / f"{device}.key"
        key.write_text(keys[role])
        key.chmod(0o600)
        sh(*topology.inside(role, "wg", "set", device, "private-key", str(key), "listen-port", "51820", "peer", public[peer],
                            "allowed-ips", "10.94.0.0/24", "endpoint", f"{where}:51820"))  # fmt: skip
        sh(*topology.inside(role, "ip", "addr", "add", f"{own}/24", "dev", device))
        sh(*topology.inside(role, "ip", "link", "set", device, "mtu", "1420", "up"))
    return Way(name="wireguard-go", host="10.94.0.2", pids=pids, carries_datagrams=True)


def nebula(topology: Topology) -> Way:
    """Two nebula processes with certificates of one authority, the server as lighthouse."""
    folder = topology.directory / "nebula"
    folder.mkdir()
    ca = ["-out-crt", str(folder / "ca.crt"), "-out-key", str(folder / "ca.key")]
    sh("nebula-cert", "ca", "-name", "bench", *ca)
    pids = []
    for role, own in (("server", "10.95.0.2"), ("client", "10.95.0.1")):
        sh("nebula-cert", "sign", "-ca-crt", ca[1], "-ca-key", ca[3], "-name", role, "-ip", f"{own}/24",
           "-out-crt", str(folder / f"{role}.crt"), "-out-key", str(folder / f"{role}.key"))  # fmt: skip
        is_server = role == "server"
        (folder / f"{role}.yml").write_text(f"""pki:
  ca: {folder}/ca.crt
  cert: {folder}/{role}.crt
  key: {folder}/{role}.key
static_host_map: {{ "10.95.0.2": ["{SERVER}:4242"] }}
lighthouse: {{ am_lighthouse: {str(is_server).lower()}, hosts: {[] if is_server else ["10.95.0.2"]} }}
listen: {{ host: 0.0.0.0, port: {4242 if is_server else 0} }}
tun: {{ dev: nebula1, mtu: 1300 }}
cipher: aes
firewall:
  outbound: [{{ port: any, proto: any, host: any }}]
  inbound: [{{ port: any, proto: any, host: any }}]
""")
        pids.append(topology.start(role, "nebula", "-config", str(folder / f"{role}.yml")).pid)
    return Way(name="nebula", host="10.95.0.2", pids=pids, carries_datagrams=True)


def openvpn(topology: Topology) -> Way:
    """Point to point over UDP, TLS with pinned certificates, AES-256-GCM, in user space."""
    folder = topology.directory / "openvpn"
    folder.mkdir()
    pins = {}
    for role in ("client", "server"):
        sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
           "-subj", f"/CN={role}", "-keyout", str(folder / f"{role}.key"), "-out", str(folder / f"{role}.crt"))  # fmt: skip
        text = sh("openssl", "x509", "-in", str(folder / f"{role}.crt"), "-noout", "-fingerprint", "-sha256")
        pins[role] = text.strip().partition("=")[2]
    both = ["openvpn", "--dev", "tun", "--proto", "udp", "--port", "1194", "--data-ciphers", "AES-256-GCM", "--dh", "none",
            "--disable-dco", "--keepalive", "10", "60", "--verb", "1"]  # fmt: skip
    pids = []
    for role, peer, own, far, more in (
        ("server", "client", "10.97.0.2", "10.97.0.1", ["--tls-server"]),
        ("client", "server", "10.97.0.1", "10.97.0.2", ["--tls-client", "--remote", SERVER]),
    ):
        pinned = ["--cert", str(folder / f"{role}.crt"), "--key", str(folder / f"{role}.key"), "--peer-fingerprint", pins[peer]]
        pids.append(topology.start(role, *both, "--ifconfig", own, far, *pinned, *more).pid)
    return Way(name="openvpn", host="10.97.0.2", pids=pids, carries_datagrams=True)


def stunnel(topology: Topology) -> Way:
    """TLS 1.3 tunnels of single ports, both certificates checked."""
    folder = topology.directory / "stunnel"
    folder.mkdir()
    for role in ("client", "server"):
        sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
           "-subj", f"/CN={role}", "-keyout", str(folder / f"{role}.key"), "-out", str(folder / f"{role}.crt"))  # fmt: skip
    pids = []
    for role, peer in (("server", "client"), ("client", "server")):
        text = f"foreground = yes\nsyslog = no\ncert = {folder}/{role}.crt\nkey = {folder}/{role}.key\n"
        text += f"CAfile = {folder}/{peer}.crt\nverifyPeer = yes\nsslVersionMin = TLSv1.3\n"
        text += f"socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\nclient = {'yes' if role == 'client' else 'no'}\n"
        for offset in range(3):
            near, far = (f"{LOCAL}:{TUNNEL_PORT + offset}", f"{SERVER}:{8000 + offset}")
            if role == "server":
                near, far = far, f"{LOCAL}:{PORT + offset}"
            text += f"[port{offset}]\naccept = {near}\nconnect = {far}\n"
        (folder / f"{role}.conf").write_text(text)
        pids.append(topology.start(role, "stunnel", str(folder / f"{role}.conf")).pid)
    return Way(name="stunnel", host=LOCAL, ports=_tunnels(), pids=pids)


def _sshd(topology: Topology) -> tuple[Path, int, list[str]]:
    """Start an OpenSSH server of its own; returns the client's key, the server's pid and the client's options."""
    folder = topology.directory / "ssh"
    folder.mkdir(exist_ok=True)
    for name in ("host", "user"):
        sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    (folder / "authorized_keys").write_text((folder / "user.pub").read_text())
    (folder / "authorized_keys").chmod(0o600)
    config = f"Port 2222\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
    config += f"PidFile none\nPermitRootLogin yes\nMaxSessions 100\nListenAddress {SERVER}\n"
    (folder / "sshd_config").write_text(config)
    Path("/run/sshd").mkdir(exist_ok=True)
    server = topology.start("server", "/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config"))
    (folder / "known_hosts").write_text(f"[{SERVER}]:2222 {(folder / 'host.pub').read_text()}")
    options = ["-F", "none", "-p", "2222", "-i", str(folder / "user"), "-o", f"UserKnownHostsFile={folder}/known_hosts",
               "-o", "BatchMode=yes"]  # fmt: skip
    _until(lambda: "2222" in _run(topology, "server", "ss", "-ltn"), "sshd")
    return folder, server.pid, options


def ssh_forward(topology: Topology) -> Way:
    """`ssh -L` with three ports."""
    _, server, options = _sshd(topology)
    forwards = [text for offset in range(3) for text in ("-L", f"{TUNNEL_PORT + offset}:{LOCAL}:{PORT + offset}")]
    client = topology.start("client", "ssh", *options, "-N", *forwards, f"root@{SERVER}")
    return Way(name="ssh -L", host=LOCAL, ports=_tunnels(), pids=[client.pid, server])


def sshuttle(topology: Topology) -> Way:
    """sshuttle to the private address of the server."""
    _, server, options = _sshd(topology)
    command = " ".join(["ssh", *options])
    client = topology.start(
        "client", "sshuttle", "--method=nft", "--disable-ipv6", "-r", f"root@{SERVER}", "-e", command, f"{PRIVATE}/32"
    )
    return Way(name="sshuttle", host=PRIVATE, pids=[client.pid, server])


def _klinket(topology: Topology, *, direct: bool) -> tuple[Deployment, Path]:
    """Start controller and relay in the middle, a connector at the server; returns them and a key file."""
    roles = {"controller": "middle", "admin": "middle", "office-1": "server", "client": "client"}
    deployment = Deployment(
        topology.directory / "klinket", address=MIDDLE_SERVER, network="bench", enter=lambda part: topology.inside(roles[part])
    )
    deployment.start_controller("--new-flows-per-second", str(NEW_FLOWS_PER_SECOND))
    deployment.admin("network", "create", "office")
    deployment.add_connector("office", "office-1")
    deployment.admin("resource", "create", "--network", "office", "--address", PRIVATE, "Target")
    deployment.start_connector("office-1", **({"KLINKET_LISTEN": f"{SERVER}:7443"} if direct else {}))
    deployment.admin("service", "create", "bench")
    deployment.admin("service", "grant", "bench", "Target")
    return deployment, deployment.add_key("bench", "bench")


def _klinket_client(topology: Topology, *, direct: bool) -> Way:
    deployment, key = _klinket(topology, direct=direct)
    proxy = 18_080
    client = deployment.start(
        "client", [sys.executable, "-m", "klinket", "client", "--key-file", str(key), "--socks", f"{LOCAL}:{proxy}"]
    )
    pids = [client.pid, deployment.parts["office-1"].pid, deployment.parts["controller"].pid]
    name = "klinket, direct" if direct else "klinket, via relay"
    return Way(name=name, host=PRIVATE, socks=proxy, pids=pids, close=deployment.stop)


def klinket_relay(topology: Topology) -> Way:
    """`klinket client`, everything over the relay in the middle."""
    return _klinket_client(topology, direct=False)


def klinket_direct(topology: Topology) -> Way:
    """`klinket client` with a connector that listens."""
    return _klinket_client(topology, direct=True)


def _klinket_capture(topology: Topology, *, direct: bool) -> Way:
    deployment, key = _klinket(topology, direct=direct)
    pids = [deployment.parts["office-1"].pid, deployment.parts["controller"].pid]
    prefix = [sys.executable, "-m", "klinket", "run", "--key-file", str(key), "--capture", "namespace", "--"]
    name = "klinket run, direct" if direct else "klinket run, via relay"
    return Way(name=name, host=PRIVATE, prefix=prefix, pids=pids, carries_datagrams=True, close=deployment.stop)


def klinket_capture(topology: Topology) -> Way:
    """The load itself below `klinket run`: transparent capture in a namespace, over the relay."""
    return _klinket_capture(topology, direct=False)


def klinket_capture_direct(topology: Topology) -> Way:
    """The same with a connector that listens."""
    return _klinket_capture(topology, direct=True)


#: By the name on the command line; what is not installed is left out aloud.
SYSTEMS: dict[str, tuple[Callable[[Topology], Way], str]] = {
    "plain": (plain, "ip"),
    "wireguard-go": (wireguard_go, "wireguard-go"),
    "nebula": (nebula, "nebula"),
    "openvpn": (openvpn, "openvpn"),
    "stunnel": (stunnel, "stunnel"),
    "ssh": (ssh_forward, "ssh"),
    "sshuttle": (sshuttle, "sshuttle"),
    "klinket-relay": (klinket_relay, "ip"),
    "klinket-direct": (klinket_direct, "ip"),
    "klinket-capture": (klinket_capture, "ip"),
    "klinket-capture-direct": (klinket_capture_direct, "ip"),
}


def installed(name: str) -> bool:
    """Return whether the program of a system is there."""
    return shutil.which(SYSTEMS[name][1], path="/usr/bin:/usr/sbin:/bin:/sbin:/usr/local/bin") is not None


def _tunnels() -> tuple[int, int, int]:
    return TUNNEL_PORT, TUNNEL_PORT + 1, TUNNEL_PORT + 2


def _has_device(topology: Topology, role: str, device: str) -> bool:
    return f" {device}:" in _run(topology, role, "ip", "-o", "link")


def _run(topology: Topology, role: str, *command: str) -> str:
    try:
        return sh(*topology.inside(role, *command))
    except RuntimeError:
        return ""


def _until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} was not ready within {READY_SECONDS:.0f} s")
        time.sleep(0.05)
