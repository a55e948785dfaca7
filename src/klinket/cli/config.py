"""`klinket config`."""

from __future__ import annotations

import click

from klinket.cli import roles
from klinket.domain.errors import InvalidInput

_HIDDEN = "(only root may read the key)"


@click.command()
@click.argument("key", required=False)
@click.argument("values", nargs=-1, metavar="[VALUE]...")
@roles.JSON_OPTION
def config(key: str | None, values: tuple[str, ...], as_json: bool) -> None:
    """Show or set what this machine's daemon does: log-level, autostart, networking (http-proxy, socks, tun,
    users, gateway-sources, fast), network.

    Without KEY all is shown, with KEY that one, with VALUE it is set (as root). The daemon reads settings when it starts.
    With --json the names are those of settings.json, `network` besides: null where there is no key, or only root may read it.

    \b
    example: sudo klinket config log-level debug
    example: sudo klinket config networking http-proxy=127.0.0.1:9999 tun=off
    """
    from klinket.client.daemon import settings
    from klinket.client.daemon.configure import NO_NETWORK, network_of, store
    from klinket.client.daemon.paths import Paths
    from klinket.client.daemon.protocol import NeedsRoot

    paths = Paths.from_environment()
    now = settings.load(paths.settings_file)

    def show(*names: str, network: str | None = None, bare: bool = False) -> None:
        """Print settings as `name: value` lines, or a bare value."""
        lines = [] if network is None else [network if bare else f"network: {network}"]
        lines += [now.shown(name) if bare else f"{name}: {now.shown(name)}" for name in names]
        document = {} if network is None else {"network": None if network in (NO_NETWORK, _HIDDEN) else network}
        roles.show("\n".join(lines), {**document, **now.document(*names)}, as_json=as_json)

    def keep(*names: str) -> None:
        done = store(paths, now)
        roles.show(done, {"ok": True, **now.document(*names), "message": done}, as_json=as_json)

    if key is None:
        try:
            network = network_of(paths)
        except NeedsRoot:
            network = _HIDDEN
        show(*settings.KEYS, *settings.NETWORKING_KEYS, network=network)
    elif key == "networking":
        if not values:
            show(*settings.NETWORKING_KEYS)
            return
        names = []
        for pair in values:
            name, equals, value = pair.partition("=")
            if not equals or name not in (*settings.NETWORKING_KEYS, "capture"):
                raise InvalidInput(
                    "networking", f"not KEY=VALUE: {pair[:60]!r}", hint="for example http-proxy=127.0.0.1:9999 tun=off"
                )
            now = now.with_value(name, value)
            names.append(name)
        keep(*names)
    elif key == "network":
        network = network_of(paths)
        if values and values[0] not in (network, network.partition(".")[0]):
            raise InvalidInput(
                "network", "the service key names the network", hint="klinket setup --headless FILE with a key of that network"
            )
        show(network=network, bare=True)
    elif not values:
        show(key, bare=True)
    elif len(values) > 1:
        raise InvalidInput(key, f"one value, not {len(values)}")
    else:
        now = now.with_value(key, values[0])
        keep(key)
