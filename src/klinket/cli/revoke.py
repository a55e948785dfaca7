"""`klinket revoke`: end a service key with itself."""

from __future__ import annotations

import click

from klinket.cli import roles


@click.command()
@roles.KEY_FILE_OPTION
@roles.JSON_OPTION
def revoke(key_file: str | None, as_json: bool) -> None:
    """End a service key with the key itself: no account, no admin. For whoever finds one that has leaked.

    What leaves this machine is a signed request to end this key, never the key. Its sessions and flows end at once.

    \b
    example: klinket revoke --key-file found.json
    """
    from klinket.client.key_source import KeySource
    from klinket.client.revoke import revoke as end
    from klinket.net.channel import controller_context

    roles.forbid_core_dumps()
    loaded = KeySource(key_file).load()
    told = roles.run_async(end(loaded, controller_context(loaded.controller_ca)))
    roles.show(told, {"ok": True, "key_id": loaded.key_id, "message": told}, as_json=as_json)
