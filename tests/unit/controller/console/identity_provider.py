"""A real identity provider on loopback (oidc-provider-mock, in a process of its own), with TLS, and what a bad one would say.

It runs as `python -m tests.unit.controller.console.identity_provider CERTIFICATE KEY`, prints its port, and takes
`PUT /faults` with JSON: `claims` to change in the next id_tokens (a null removes one), `signer: "other"`, `size` of its answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import trustme


@dataclass
class IdentityProvider:
    """`authority`: PEM of what signed its certificate."""

    issuer: str
    authority: str
    client: httpx2.Client

    def add_user(self, subject: str, **claims: Any) -> None:
        """Make an account."""
        self.client.put(f"/users/{subject}", json=claims).raise_for_status()

    def faults(self, **given: Any) -> None:
        """Let it say something else from now on."""
        self.client.put("/faults", json=given).raise_for_status()

    def sign_in(self, address: str, subject: str) -> str:
        """Sign in there as a person does; returns the address it leads back to."""
        assert address.startswith(self.issuer)
        assert self.client.get(address).status_code == 200
        answer = self.client.post(address, data={"sub": subject})
        assert answer.status_code == 302, answer.text
        return str(answer.headers["location"])


@contextmanager
def identity_provider(folder: Path) -> Iterator[IdentityProvider]:
    """Start one on loopback, and stop it afterwards."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain, key = folder / "provider.pem", folder / "provider.key"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    root = folder / "authority.pem"
    authority.cert_pem.write_to_path(root)
    arguments = [sys.executable, "-W", "ignore", "-m", __spec__.name, str(chain), str(key)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4])
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        import ssl

        context = ssl.create_default_context(cafile=root)
        issuer = f"https://localhost:{port}"
        with httpx2.Client(base_url=issuer, verify=context, trust_env=False, follow_redirects=False) as client:
            yield IdentityProvider(issuer, root.read_text(), client)
    finally:
        process.terminate()
        process.wait(10)


def serve(certificate: str, key: str) -> None:
    """Serve until it is ended."""
    import logging

    import flask
    import oidc_provider_mock
    import werkzeug.serving
    from joserfc import jws
    from joserfc.jwk import RSAKey
    from oidc_provider_mock import _storage

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = oidc_provider_mock.app()
    faults: dict[str, Any] = {}
    other = RSAKey.generate_key(2048)

    @app.put("/faults")
    def change() -> tuple[str, int]:
        faults.clear()
        faults.update(flask.request.get_json())
        return "", 204

    @app.after_request
    def spoil(response: flask.Response) -> flask.Response:
        if "size" in faults and flask.request.path == faults.get("at", "/oauth2/token"):
            response.set_data(b'{"x":"' + b"x" * int(faults["size"]) + b'"}')
        elif faults.get("claims") or faults.get("signer"):
            if flask.request.path == "/oauth2/token" and response.status_code == 200:
                answer = json.loads(response.get_data())
                header, payload, _ = (part + "==" for part in answer["id_token"].split("."))
                from base64 import urlsafe_b64decode

                claims = {**json.loads(urlsafe_b64decode(payload)), **faults.get("claims", {})}
                claims = {name: value for name, value in claims.items() if value is not None}
                told = json.loads(urlsafe_b64decode(header))
                own = RSAKey.import_key(_storage.storage.jwk.as_dict(is_private=True))
                signer = other if faults.get("signer") == "other" else own
                if faults.get("signer") == "none":
                    from base64 import urlsafe_b64encode

                    def part(values: dict[str, Any]) -> str:
                        return urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")

                    answer["id_token"] = f"{part({**told, 'alg': 'none'})}.{part(claims)}."
                else:
                    answer["id_token"] = jws.serialize_compact(told, json.dumps(claims), signer, algorithms=["RS256"])
                response.set_data(json.dumps(answer).encode())
        return response

    server = werkzeug.serving.make_server("localhost", 0, app, threaded=True, ssl_context=(certificate, key))
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(*sys.argv[1:])
