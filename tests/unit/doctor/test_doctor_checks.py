"""Each check of the doctor says what it found, and what to do where that is not well."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from klinket.doctor import certificates, clock, controller_probe, disk, ports, versions
from klinket.doctor.finding import Finding, Outcome
from klinket.net.sockets import HostPort

NOW = datetime.datetime.now(datetime.UTC)
Room = namedtuple("Room", "f_bavail f_frsize f_files f_favail")


def outcomes(found: list[Finding]) -> dict[str, str]:
    assert all(one.next for one in found if one.outcome is not Outcome.OK), "what is not well has a next step"
    return {one.name: one.outcome.value for one in found}


@pytest.mark.parametrize("role", ["controller", "connector", "relay", "client"])
def test_what_is_installed_here_is_enough_for_every_role(role: str) -> None:
    assert outcomes(list(versions.versions(role))) == {"versions": "ok", "packages": "ok"}


def test_a_missing_package_is_named_for_the_role_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "prometheus-client":
            raise metadata.PackageNotFoundError
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = list(versions.versions("relay"))[1]
    assert (found.outcome, found.next) == (Outcome.FAIL, "pip install 'klinket[relay]'")
    assert "prometheus-client" in found.text
    assert list(versions.versions("client"))[1].outcome is Outcome.OK


@pytest.mark.parametrize(
    ("difference", "outcome"), [(0, "ok"), (1.9, "ok"), (-3, "warn"), (4.9, "warn"), (5.1, "fail"), (-3600, "fail")]
)
def test_a_clock_is_judged_by_how_far_it_is_from_the_controllers(difference: float, outcome: str) -> None:
    found = clock.against(1_000_000.5 + difference, 1_000_000)
    assert outcomes([found]) == {"clock": outcome}
    assert ("ahead" in found.text) == (difference > 1.5)
    assert ("the same" in found.text) == (difference == 0)


def test_whether_the_clock_is_kept_is_known_or_not_said() -> None:
    assert [one.name for one in clock.kept()] in ([], ["clock-kept"])


@pytest.mark.parametrize(
    ("room", "outcome"),
    [
        (Room(10 << 30, 1, 100, 50), "ok"),
        (Room(10 << 30, 1, 0, 0), "ok"),  # btrfs knows no number of files
        (Room(500 << 20, 1, 100, 50), "warn"),
        (Room(10 << 30, 1, 1000, 3), "warn"),
        (Room(1 << 20, 1, 100, 50), "fail"),
    ],
)
def test_room_on_disk_is_of_bytes_and_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: Room, outcome: str) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: room)
    assert outcomes([disk.room(tmp_path)]) == {"disk": outcome}


def test_a_state_folder_is_there_private_and_a_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert outcomes(list(disk.folder(tmp_path)))["state"] == "ok"
    tmp_path.chmod(0o750)
    (state, _) = disk.folder(tmp_path)
    assert (state.outcome, state.next) == (Outcome.FAIL, f"chmod 0700 {tmp_path}")
    (tmp_path / "file").touch()
    for wrong in ("file", "nothing"):
        assert outcomes(list(disk.folder(tmp_path / wrong))) == {"state": "fail"}


def test_an_address_is_free_in_use_or_not_of_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = ports.listening(HostPort("127.0.0.1", taken.getsockname()[1]))
    assert (used.outcome, "something listens" in used.text) == (Outcome.OK, True)
    free = ports.listening(HostPort("127.0.0.1", 0))
    assert (free.outcome, "is free" in free.text) == (Outcome.OK, True)
    assert outcomes([ports.listening(HostPort("192.0.2.1", 8443))]) == {"listen": "fail"}


def test_few_open_files_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 2048))
    assert outcomes(list(ports.open_files("relay"))) == {"files": "warn"}
    assert outcomes(list(ports.open_files("client"))) == {"files": "ok"}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    assert outcomes(list(ports.open_files("relay"))) == {"files": "ok"}


@pytest.mark.parametrize(("days", "outcome"), [(100, "ok"), (13, "warn"), (-1, "fail")])
def test_a_certificate_that_ends_soon_is_a_warning_and_one_that_has_ended_a_failure(
    tmp_path: Path, days: float, outcome: str
) -> None:
    issued = trustme.CA().issue_cert("localhost", not_after=NOW + datetime.timedelta(days=100))
    path = tmp_path / "certificate.pem"
    path.write_bytes(issued.cert_chain_pems[0].bytes())
    then = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc - datetime.timedelta(days=days)
    assert outcomes([certificates.file(path, then, "renew it")]) == {"certificate-file": outcome}


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nonsense.pem"
    path.write_text("nonsense")
    assert "no certificate in PEM" in certificates.file(path, NOW, "renew it").text
    assert outcomes([certificates.file(tmp_path / "nothing", NOW, "renew it")]) == {"certificate-file": "fail"}


def test_a_certificate_does_not_count_before_its_time(tmp_path: Path) -> None:
    path = tmp_path / "certificate.pem"
    path.write_bytes(trustme.CA().issue_cert("localhost").cert_chain_pems[0].bytes())
    early = datetime.datetime(1999, 1, 1, tzinfo=datetime.UTC)
    assert "set the clock" in certificates.file(path, early, "renew it").next


def test_a_name_that_nobody_knows_ends_the_way_at_the_first_step() -> None:
    found = list(controller_probe.probe("https://nowhere.invalid", ssl.create_default_context(), 10))
    assert outcomes(found) == {"dns": "fail"}


def test_who_speaks_no_tls_is_not_asked_further() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        found = list(controller_probe.probe(url, ssl.create_default_context(), 0.3))
    assert outcomes(found) == {"dns": "ok", "port": "ok", "certificate": "fail"}


def test_reasons_of_a_part_are_shown_and_cannot_move_the_cursor() -> None:
    told = {"reasons": [{"code": "no-path", "text": "\x1b[2Jgone"}, "nonsense"]}
    found = controller_probe.ready("ready", "the part", 503, dict(told))
    assert found.outcome is Outcome.FAIL
    assert "no-path: ?[2Jgone" in found.text
    assert outcomes([controller_probe.ready("ready", "the part", 500, {})]) == {"ready": "fail"}


def test_a_part_that_does_not_run_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert outcomes([controller_probe.own_ready(HostPort("127.0.0.1", port), 5)]) == {"ready": "fail"}
