"""`klinket config`."""

from __future__ import annotations

import click

from klinket.domain.errors import InvalidInput


@click.command()
@click.argument("key", required=False)
@click.argument("values", nargs=-1, metavar="[VALUE]...")
def config(key: str | None, values: tuple[str, ...]) -> None:
    """Show or set what this machine's daemon does: log-level, autostart, networking (http-proxy, socks, tun,
    users, gateway-sources, fast), network.

    Without KEY all is shown, with KEY that one, with VALUE it is set (as root). The daemon reads settings when it starts.

    \b
    example: sudo klinket config log-level debug
    example: sudo klinket config networking http-proxy=127.0.0.1:9999 tun=off
    """
    from klinket.client.daemon import settings
    from klinket.client.daemon.configure import network_of, store
    from klinket.client.daemon.paths import Paths
    from klinket.client.daemon.protocol import NeedsRoot

    paths = Paths.from_environment()
    now = settings.load(paths.settings_file)
    if key is None:
        try:
            click.echo(f"network: {network_of(paths)}")
        except NeedsRoot:
            click.echo("network: (only root may read the key)")
        for name in (*settings.KEYS, *settings.NETWORKING_KEYS):
            click.echo(f"{name}: {now.shown(name)}")
    elif key == "networking":
        if not values:
            for name in settings.NETWORKING_KEYS:
                click.echo(f"{name}: {now.shown(name)}")
            return
        for pair in values:
            name, equals, value = pair.partition("=")
            if not equals or name not in (*settings.NETWORKING_KEYS, "capture"):
                raise InvalidInput(
                    "networking", f"not KEY=VALUE: {pair[:60]!r}", hint="for example http-proxy=127.0.0.1:9999 tun=off"
                )
            now = now.with_value(name, value)
        click.echo(store(paths, now))
    elif key == "network":
        network = network_of(paths)
        if values and values[0] not in (network, network.partition(".")[0]):
            raise InvalidInput(
                "network", "the service key names the network", hint="klinket setup --headless FILE with a key of that network"
            )
        click.echo(network)
    elif not values:
        click.echo(now.shown(key))
    elif len(values) > 1:
        raise InvalidInput(key, f"one value, not {len(values)}")
    else:
        click.echo(store(paths, now.with_value(key, values[0])))
