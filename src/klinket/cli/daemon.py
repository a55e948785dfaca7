"""`klinket daemon`."""

from __future__ import annotations

from pathlib import Path

import click

from klinket.cli import roles


@click.command()
@click.option("--http-proxy", metavar="HOST:PORT", help="Listen as an HTTP proxy, on loopback.")
@click.option("--socks", metavar="HOST:PORT", help="Listen as a SOCKS5 proxy, on loopback.")
@click.option(
    "--capture",
    "--tun",
    type=click.Choice(["on", "off"]),
    help="Capture all traffic (as root), or only serve proxies.",
)
@roles.PROCESSES_OPTION
@roles.METRICS_OPTION
@click.option("--log-level", help="error, warn, info, debug or trace.")
@click.option("--log-file", type=click.Path(path_type=Path), help="Write the log there, rotated, instead of to standard error.")
def daemon(
    http_proxy: str | None,
    socks: str | None,
    capture: str | None,
    processes: int | None,
    metrics: str | None,
    log_level: str | None,
    log_file: Path | None,
) -> None:
    """Be this machine's daemon, in the foreground: what `klinket start` starts, and the entry point of a container.

    The key: the variable KLINKET_SERVICE_KEY, or /etc/klinket/service_key.json. Options come before variables, those before
    what `klinket config` has set. A replaced key file, or SIGHUP, makes it take the new key over without dropping a flow.

    \b
    example: klinket daemon --capture off --http-proxy 127.0.0.1:9999
    """
    from klinket.client.daemon import serve, settings
    from klinket.client.daemon.paths import Paths
    from klinket.net.carrying import with_workers

    paths = Paths.from_environment()
    wanted = settings.load(paths.settings_file)
    wanted = settings.with_environment(settings.load(paths.networking_file, wanted))
    for key, value in (("http-proxy", http_proxy), ("socks", socks), ("tun", capture), ("log-level", log_level)):
        if value is not None:
            wanted = wanted.with_value(key, value)
    roles.set_up_logging(settings.LEVELS[wanted.log_level], log_file)
    roles.forbid_core_dumps()
    watched = roles.metrics_address(metrics)
    roles.run_until_stopped(with_workers(lambda stop: serve.run(paths, wanted, stop, watched), processes))
