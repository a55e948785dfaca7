"""The child of `klinket run`: makes the namespaces, hands its sockets out, and becomes the command.

Runs between fork and exec, in a process that never held the service key. Every step fails closed: an error is reported over
the channel and the process ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from klinket.client.capture import descriptors, proxy_variables, syscalls
from klinket.client.capture.datagrams import IP_RECVORIGDSTADDR
from klinket.client.capture.namespace import rules

#: An option of linux/in.h that the socket module does not name.
IP_TRANSPARENT = 19
_NETLINK_NETFILTER = 12

#: Sockets handed out, in this order.
SOCKETS = ("listener", "datagrams", "raw", "queue", "dns", "dns_listener")
HTTP_PROXY, SOCKS_PROXY = "http_proxy", "socks_proxy"
READY = b"ready"
GO = b"go"
CANNOT_EXECUTE = 126
NOT_FOUND = 127

_RESOLV_CONF = "/etc/resolv.conf"
#: Sockets of name services that would answer past resolv.conf; unreachable ones make the C library ask DNS.
_NAME_SERVICE_SOCKETS = ("/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket", "/var/run/nscd/socket")
_PACKET_TOOLS = ("iptables-nft-restore", "iptables-restore")
_SYSTEM_PATHS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")


@dataclass(frozen=True, slots=True)
class Command:
    """What the child becomes. `hidden`: files that the command must not read; `resolv_conf`: the text of its own.

    `pass_descriptors`: files above 2 that it gets; `emptied`: of 0 to 2, those that hold the key and become /dev/null;
    `env_proxy`: its environment names proxies, which listen on its own loopback.
    """

    arguments: Sequence[str]
    hidden: Sequence[Path]
    resolv_conf: str
    pass_descriptors: Sequence[int] = ()
    emptied: Sequence[int] = ()
    env_proxy: bool = False


def sockets_of(command: Command) -> tuple[str, ...]:
    """Return the names of the sockets that are handed out, in their order."""
    return (*SOCKETS, HTTP_PROXY, SOCKS_PROXY) if command.env_proxy else SOCKETS


class StepFailed(Exception):
    """A step of the set-up failed; the text names it and says what may help."""


def become(command: Command, channel: socket.socket, parent: int) -> NoReturn:
    """Set everything up, wait for GO, and execute the command. Never returns; `channel` is a SOCK_SEQPACKET socket."""
    try:
        uid, gid = os.getuid(), os.getgid()
        descriptors.keep_only(command.pass_descriptors, command.emptied)
        _own_namespaces(uid, gid)
        _network()
        sockets = _sockets()
        if command.env_proxy:
            sockets += _proxies()
        _files(command)
        socket.send_fds(channel, [READY], [sock.fileno() for sock in sockets])
        for sock in sockets:
            sock.close()
        if channel.recv(16) != GO:
            os._exit(0)
        _give_up_privileges(uid, gid)
        syscalls.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)  # it died before we asked to be told
        _reset_signals()
    except StepFailed as failure:
        _report(channel, f"failed:{failure}")
    except BaseException as error:
        _report(channel, f"failed:{type(error).__name__}: {error}")
    else:
        _execute(command.arguments, channel)
    os._exit(CANNOT_EXECUTE)


def _report(channel: socket.socket, text: str) -> None:
    try:
        channel.send(text.encode(errors="replace")[:4096])
    except OSError:
        pass  # the parent is gone


def _execute(arguments: Sequence[str], channel: socket.socket) -> NoReturn:
    try:
        os.execvp(arguments[0], list(arguments))  # noqa: S606 - the user's own command
    except FileNotFoundError:
        _report(channel, f"exec:{arguments[0]}: command not found")
        os._exit(NOT_FOUND)
    except OSError as error:
        _report(channel, f"exec:{arguments[0]}: {error.strerror}")
        os._exit(CANNOT_EXECUTE)


def _step(what: str, hint: str, action: Callable[[], object]) -> None:
    try:
        action()
    except OSError as error:
        raise StepFailed(f"{what}: {hint} ({error.strerror or error})") from error


def _own_namespaces(uid: int, gid: int) -> None:
    flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS
    forbidden = (
        "this host or container forbids user namespaces: allow them with sysctl kernel.unprivileged_userns_clone=1, "
        "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces>0 or the container's seccomp profile"
    )
    _step("a user and network namespace", forbidden, lambda: syscalls.unshare(flags))
    _step("mapping the user id", forbidden, lambda: _map_ids(inner_uid=0, outer_uid=uid, inner_gid=0, outer_gid=gid))
    # What is mounted here must not appear outside.
    private = syscalls.MS_REC | syscalls.MS_PRIVATE
    _step("private mounts", forbidden, lambda: syscalls.mount("none", "/", private))


def _map_ids(*, inner_uid: int, outer_uid: int, inner_gid: int, outer_gid: int) -> None:
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inner_uid} {outer_uid} 1")
    Path("/proc/self/gid_map").write_text(f"{inner_gid} {outer_gid} 1")


def _network() -> None:
    _tool(("ip",), ("-batch", "-"), rules.links_and_routes(), "iproute2")
    _tool(_PACKET_TOOLS, (), rules.packet_rules(), "iptables")
    for name, value in rules.SYSCTLS.items():
        try:
            Path("/proc/sys", name).write_text(value)
        except OSError:
            pass  # a container's read-only /proc/sys, or an older kernel: only the time until a timeout differs


def _tool(names: Sequence[str], arguments: Sequence[str], text: str, package: str) -> None:
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM_PATHS])
    found = next((tool for name in names if (tool := shutil.which(name, path=path))), None)
    if found is None:
        raise StepFailed(f"{names[0]} is missing (install it: apt-get install {package})")
    done = subprocess.run([found, *arguments], input=text, text=True, capture_output=True, timeout=20)
    if done.returncode:
        raise StepFailed(f"{names[0]}: {done.stderr.strip()[-500:]} (does this kernel have NFQUEUE and TPROXY?)")


def _sockets() -> list[socket.socket]:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for sock in (listener, datagrams):
        sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        sock.bind((rules.CAPTURE_ADDRESS, rules.CAPTURE_PORT))
    listener.listen(4096)
    datagrams.setsockopt(socket.SOL_IP, IP_RECVORIGDSTADDR, 1)
    # Answers to datagrams carry the address they were sent to as their source, so they are written as whole packets.
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    queue = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    queue.bind((0, 0))
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind((rules.DNS_ADDRESS, rules.DNS_PORT))
    dns_listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    dns_listener.bind((rules.DNS_ADDRESS, rules.DNS_PORT))
    dns_listener.listen(64)
    return [listener, datagrams, raw, queue, dns, dns_listener]


def _proxies() -> list[socket.socket]:
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in (HTTP_PROXY, SOCKS_PROXY)]
    http, socks = (f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners)
    os.environ.update(proxy_variables.of(http, socks))
    return listeners


def powers_of(program: str, path: str) -> str:
    """Return "setuid" or "setgid" for a program that would give whoever runs it more rights, "" for any other."""
    try:
        mode = Path(shutil.which(program, path=path) or program).stat().st_mode
    except OSError:
        return ""
    return "setuid" if mode & stat.S_ISUID else "setgid" if mode & stat.S_ISGID and mode & stat.S_IXGRP else ""


def _files(command: Command) -> None:
    descriptor, name = tempfile.mkstemp(prefix="klinket-resolv-")
    try:
        os.write(descriptor, command.resolv_conf.encode())
        os.fchmod(descriptor, 0o644)
        _step("an own /etc/resolv.conf", "the file must exist", lambda: _bind(name, _RESOLV_CONF))
    finally:
        os.close(descriptor)
        Path(name).unlink()  # the mount keeps it
    for path in _NAME_SERVICE_SOCKETS:
        if Path(path).exists():
            _step(f"hiding {path}", "it would answer names past klinket", lambda path=path: _bind("/dev/null", path))  # type: ignore[misc]
    for hidden in command.hidden:
        _step(f"hiding {hidden}", "the command must not read the key", lambda hidden=hidden: _bind("/dev/null", str(hidden)))  # type: ignore[misc]


def _bind(source: str, target: str) -> None:
    syscalls.mount(source, os.path.realpath(target), syscalls.MS_BIND)


def _give_up_privileges(uid: int, gid: int) -> None:
    # A second namespace gives the user its own id back and leaves it without power over the first, and so over the rules.
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    _map_ids(inner_uid=uid, outer_uid=0, inner_gid=gid, outer_gid=0)
    syscalls.give_up_capabilities()


def _reset_signals() -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ if hasattr(signal, "SIGXFSZ") else signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them; the command must not inherit that
    sys.stdout.flush()
