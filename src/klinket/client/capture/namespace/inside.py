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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from klinket.client.capture import descriptors, proxy_variables, syscalls
from klinket.client.capture.answers import loopback_socket
from klinket.client.capture.datagrams import IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR
from klinket.client.capture.namespace import rules

#: Options of linux/in.h and linux/in6.h that the socket module does not name.
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
_NETLINK_NETFILTER = 12

HTTP_PROXY, SOCKS_PROXY = "http_proxy", "socks_proxy"
#: Sockets handed out, at the most.
MAX_SOCKETS = 16
#: Said before the names of the sockets that are handed out, in their order, each after a space.
READY = b"ready"
GO = b"go"
CANNOT_EXECUTE = 126
NOT_FOUND = 127

_RESOLV_CONF = "/etc/resolv.conf"
#: Sockets of name services that would answer past resolv.conf; unreachable ones make the C library ask DNS.
_NAME_SERVICE_SOCKETS = ("/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket", "/var/run/nscd/socket")
_PACKET_TOOLS = ("iptables-nft-restore", "iptables-restore")
_PACKET_TOOLS6 = ("ip6tables-nft-restore", "ip6tables-restore")
_IPV6 = Path("/proc/sys/net/ipv6")
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


class StepFailed(Exception):
    """A step of the set-up failed; the text names it and says what may help."""


def become(command: Command, channel: socket.socket, parent: int) -> NoReturn:
    """Set everything up, wait for GO, and execute the command. Never returns; `channel` is a SOCK_SEQPACKET socket."""
    try:
        uid, gid = os.getuid(), os.getgid()
        descriptors.keep_only(command.pass_descriptors, command.emptied)
        _own_namespaces(uid, gid)
        sockets = _sockets(has_ipv6=_network())
        if command.env_proxy:
            sockets |= _proxies()
        _files(command)
        told = b" ".join([READY, *(name.encode() for name in sockets)])
        socket.send_fds(channel, [told], [sock.fileno() for sock in sockets.values()])
        for sock in sockets.values():
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


def _network() -> bool:
    """Set up links, routes and rules; returns whether there is IPv6. Where it is off, connects to it find no route."""
    _tool(("ip",), ("-batch", "-"), rules.links_and_routes(), "iproute2")
    _tool(_PACKET_TOOLS, (), rules.packet_rules(), "iptables")
    _set(rules.SYSCTLS)
    if not _IPV6.exists():
        return False
    _set(rules.SYSCTLS6)
    try:
        _tool(_PACKET_TOOLS6, (), rules.packet_rules6(), "iptables")  # before there is a route that they must guard
        _tool(("ip",), ("-6", "-batch", "-"), rules.links_and_routes6(), "iproute2")
    except StepFailed:
        return False  # a kernel without these parts for IPv6
    return True


def _set(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        try:
            Path("/proc/sys", name).write_text(value)
        except OSError:
            pass  # a container's read-only /proc/sys, or an older kernel: the command can do less, and nothing leaves


def _tool(names: Sequence[str], arguments: Sequence[str], text: str, package: str) -> None:
    path = os.pathsep.join([os.environ.get("PATH", ""), *_SYSTEM_PATHS])
    found = next((tool for name in names if (tool := shutil.which(name, path=path))), None)
    if found is None:
        raise StepFailed(f"{names[0]} is missing (install it: apt-get install {package})")
    done = subprocess.run([found, *arguments], input=text, text=True, capture_output=True, timeout=20)
    if done.returncode:
        raise StepFailed(f"{names[0]}: {done.stderr.strip()[-500:]} (does this kernel have NFQUEUE and TPROXY?)")


def _sockets(*, has_ipv6: bool) -> dict[str, socket.socket]:
    made = _of_family(socket.AF_INET, "")
    if has_ipv6:
        made |= _of_family(socket.AF_INET6, "6")
    for name in ("queue", "echo_queue"):
        made[name] = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        made[name].bind((0, 0))
    dns = made["dns"] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind((rules.DNS_ADDRESS, rules.DNS_PORT))
    dns_listener = made["dns_listener"] = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    dns_listener.bind((rules.DNS_ADDRESS, rules.DNS_PORT))
    dns_listener.listen(64)
    return made


def _of_family(family: int, ending: str) -> dict[str, socket.socket]:
    """Return what serves one family; names have this ending."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    for sock in (listener, datagrams):
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            sock.bind((rules.CAPTURE_ADDRESS6, rules.CAPTURE_PORT))
        else:
            sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
            sock.bind((rules.CAPTURE_ADDRESS, rules.CAPTURE_PORT))
    listener.listen(4096)
    if family == socket.AF_INET6:
        datagrams.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1)
    else:
        datagrams.setsockopt(socket.SOL_IP, IP_RECVORIGDSTADDR, 1)
    # Answers to datagrams and pings carry the address that was asked as their source, so they are written as whole packets.
    raw, echo_raw = (socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) for _ in range(2))
    sockets = {"listener": listener, "datagrams": datagrams, "raw": raw, "echo_raw": echo_raw}
    if family == socket.AF_INET6 or _takes_own_addresses():
        try:
            sockets["loopback"] = loopback_socket()
        except OSError:
            pass  # a kernel or a container without packet sockets: each answer by itself
    return {name + ending: sock for name, sock in sockets.items()}


def _takes_own_addresses() -> bool:
    """Return whether packets that come from the loopback device may have an address of this namespace: all are its own."""
    try:
        return Path("/proc/sys", rules.ACCEPT_LOCAL).read_text().strip() == "1"
    except OSError:
        return False


def _proxies() -> dict[str, socket.socket]:
    listeners = {name: socket.create_server(("127.0.0.1", 0), backlog=1024) for name in (HTTP_PROXY, SOCKS_PROXY)}
    http, socks = (f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners.values())
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
