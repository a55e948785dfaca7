"""What browsers send as a passkey's answer: anything at all, and it proves nothing unless everything is right."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.controller import sealing
from klinket.controller.app.rows import UserRow
from klinket.controller.console.sign_in.passkey_ceremony import CHALLENGE_MS, Passkeys
from klinket.controller.console.sign_in.sealed_text import seal, unseal
from klinket.domain.errors import SignInOver, SignInRefused

NOW = 1_800_000_000_000
USER = UserRow(7, 0, 0, "ada@example.com", "Ada", None, "ACTIVE", "ADMIN", "MANUAL")


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> sealing.MasterKey:
    return sealing.load_or_make(tmp_path_factory.mktemp("keys") / "master.key")


@pytest.fixture(scope="module")
def passkeys(master: sealing.MasterKey) -> Passkeys:
    return Passkeys(master, "acme", "k.example", "https://k.example", os.urandom)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40) | st.sampled_from(["public-key", "AAAA", "webauthn.get"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "rawId",
                    "type",
                    "response",
                    "clientDataJSON",
                    "authenticatorData",
                    "signature",
                    "attestationObject",
                    "userHandle",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(values.map(json.dumps) | st.text(max_size=200))
def test_any_answer_is_refused_and_nothing_else_happens(passkeys: Passkeys, answer: str) -> None:
    asked = passkeys.ask((), NOW, verified=True)
    with pytest.raises(SignInRefused):
        passkeys.answered(answer, asked.challenge, NOW)
        raise SignInRefused("it has the shape of an answer: there is no key to compare it with yet")
    new = passkeys.ask_for_new(USER, (), 1, NOW)
    with pytest.raises(SignInRefused):
        passkeys.registered(answer, new.challenge, USER, 1, NOW)


def test_an_answer_of_another_session_user_or_purpose_is_refused(passkeys: Passkeys) -> None:
    new = passkeys.ask_for_new(USER, (), 1, NOW)
    with pytest.raises(SignInRefused):
        passkeys.registered("{}", new.challenge, USER, 2, NOW)
    asked = passkeys.ask((), NOW, session=1, verified=False)
    with pytest.raises(SignInRefused):
        passkeys.answered("{}", asked.challenge, NOW, session=2)
    with pytest.raises(SignInRefused):
        passkeys.answered("{}", asked.challenge, NOW)
    with pytest.raises(SignInOver):
        passkeys.answered("{}", new.challenge, NOW)
    with pytest.raises(SignInOver):
        passkeys.answered("{}", asked.challenge, NOW + CHALLENGE_MS, session=1)


def test_a_passkey_alone_asks_for_its_owner_and_names_no_credentials(passkeys: Passkeys) -> None:
    options = json.loads(passkeys.ask((), NOW, verified=True).options)
    assert (options["userVerification"], options["rpId"]) == ("required", "k.example")
    assert "allowCredentials" not in options


@pytest.mark.parametrize(
    ("host", "possible"), [("k.example", True), ("localhost", True), ("192.0.2.1", False), ("2001:db8::1", False)]
)
def test_passkeys_need_a_host_name(master: sealing.MasterKey, host: str, possible: bool) -> None:
    assert Passkeys(master, "acme", host, f"https://{host}", os.urandom).are_possible == possible


@given(st.text(max_size=300))
def test_a_sealed_text_is_ours_or_refused(master: sealing.MasterKey, text: str) -> None:
    with pytest.raises(SignInOver):
        unseal(master, "purpose", text, NOW)


def test_a_sealed_text_opens_for_its_purpose_until_its_end(master: sealing.MasterKey, tmp_path: Path) -> None:
    text = seal(master, "purpose", {"a": 1}, NOW + 1)
    assert unseal(master, "purpose", text, NOW)["a"] == 1
    other = sealing.load_or_make(tmp_path / "other.key")
    for attempt in ((master, "other", text, NOW), (other, "purpose", text, NOW), (master, "purpose", text, NOW + 1)):
        with pytest.raises(SignInOver):
            unseal(*attempt)
    for at in range(len(text)):
        spoilt = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        try:  # the last character holds bits that are no part of the bytes
            assert unseal(master, "purpose", spoilt, NOW)["a"] == 1
            assert at == len(text) - 1
        except SignInOver:
            pass
