"""What `klinket doctor` looks at: a part's settings as the part itself would take them, or what is wrong with them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from klinket.cli import roles
from klinket.client.daemon.paths import Paths
from klinket.client.key_source import KeySource
from klinket.connector import config as connector_config
from klinket.doctor.examination import Asked
from klinket.doctor.finding import Finding, fail, ok
from klinket.domain.errors import InvalidInput, KlinketError
from klinket.net.channel import controller_context

#: Files with certificates that a part makes in its state folder.
OWN_CERTIFICATES = {"controller": "controller-ca.pem", "relay": "relay-certificate.pem"}


@dataclass(frozen=True, kw_only=True)
class Given:
    """The options as they were given."""

    role: str
    url: str | None
    ca: Path | None
    key_file: Path | None
    tokens_file: Path | None
    state: Path | None
    certificate: Path | None
    listen: str | None
    metrics: str | None
    timeout: float
    #: `url` was given as an option: the way there is asked for, also by who has no credentials. A variable belongs to the part.
    url_alone: bool = False

    def asked(self) -> Asked:
        """Return what is to be looked at; raises InvalidInput for an option that is none."""
        found: list[Finding] = []
        url, authority, context = self._url(), None, None
        try:
            if self.role == "client" and (self.key_file is not None or not self.url_alone):
                url, authority = self._key(found)
            elif self.role == "connector" and (self.tokens_file is not None or not self.url_alone):
                made = connector_config.load(self.tokens_file, url, None, self.state or Path())
                url, authority = made.controller, made.controller_ca
                found.append(ok("settings", f"tokens of a connector at {made.controller}"))
            if (ca := self.ca or self._own_authority()) is not None:
                authority = self._authority(ca)
            context = controller_context(authority)
        except KlinketError as error:
            found.append(fail("settings", error.message, error.hint or "klinket doctor --help names the options"))
        return Asked(
            role=self.role,
            seconds=self.timeout,
            url=url,
            context=context,
            state=self.state,
            listen=roles.host_port("--listen", self.listen) if self.listen else None,
            metrics=roles.host_port("--metrics", self.metrics) if self.metrics else None,
            certificates=self._certificates(),
            found=tuple(found),
        )

    def _url(self) -> str | None:
        url = self.url if self.url is None or "://" in self.url else f"https://{self.url}"
        if url is not None and (not url.startswith("https://") or not urlsplit(url).hostname):
            raise InvalidInput("url", f"not an https URL: {url[:200]!r}", hint="https://HOST or https://HOST:PORT")
        return url

    def _key(self, found: list[Finding]) -> tuple[str, str | None]:
        file = self.key_file or Paths.from_environment().key_instead
        key = KeySource(None if file is None else str(file)).load()
        found.append(ok("settings", f"service key {key.key_id} for {key.network}, from {file or 'the environment'}"))
        if file is not None and os.name == "posix":
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & 0o077:
                found.append(fail("key-file", f"{file} has mode {mode:04o}: others may read the key", f"chmod 0600 {file}"))
            else:
                found.append(ok("key-file", f"{file} is private"))
        return self._url() or f"https://{key.network}", key.controller_ca

    def _own_authority(self) -> Path | None:
        """Return the authority that a controller without a certificate of others has made, if this is one."""
        if self.role != "controller" or self.state is None or self.certificate is not None:
            return None
        path = self.state / OWN_CERTIFICATES["controller"]
        return path if path.exists() else None

    @staticmethod
    def _authority(path: Path) -> str:
        try:
            return path.read_text()
        except (OSError, ValueError) as error:
            raise InvalidInput("ca", f"cannot read {path}: {getattr(error, 'strerror', None) or 'not PEM'}") from error

    def _certificates(self) -> tuple[Path, ...]:
        if self.certificate is not None:
            return (self.certificate,)
        name = OWN_CERTIFICATES.get(self.role)
        return () if self.state is None or name is None or not (self.state / name).exists() else (self.state / name,)
