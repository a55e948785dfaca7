"""`klinket client`."""

from __future__ import annotations

import click

from klinket.cli import roles
from klinket.domain.errors import CaptureImpossible, InvalidInput

#: What Twingate's client calls the capture of its machine, and what that is here.
_TUN = {"off": "off", "on": "host"}


class _Capture(click.Choice[str]):
    """off or host; as TWINGATE_TUN has it, off or on."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(super().convert(_TUN.get(value.lower(), value), param, ctx))


@click.command()
@roles.KEY_FILE_OPTION
@click.option(
    "--http-proxy", envvar="TWINGATE_HTTP_PROXY", metavar="HOST:PORT", help="Listen as an HTTP proxy (CONNECT and http:// URLs)."
)
@click.option("--socks", metavar="HOST:PORT", help="Listen as a SOCKS5 proxy.")
@click.option(
    "--proxy-token-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="What programs must show; needed to listen beyond loopback. Default: the variable KLINKET_PROXY_TOKEN.",
)
@click.option(
    "--capture",
    type=_Capture(["off", "host"]),
    default="off",
    show_default=True,
    envvar="TWINGATE_TUN",
    help="Whether connections of this machine are captured as well.",
)
@click.option("--direct", is_flag=True, help="Dial from this machine what is not granted, instead of refusing it.")
@roles.PROCESSES_OPTION
@click.option("--log-level", default="info", show_default=True, type=click.Choice(roles.LEVELS))
def client(
    key_file: str | None,
    http_proxy: str | None,
    socks: str | None,
    proxy_token_file: str | None,
    capture: str,
    direct: bool,
    processes: int | None,
    log_level: str,
) -> None:
    """Serve granted resources to programs of this machine through local proxies.

    A proxy answers when the resource has answered: HTTP 403 and SOCKS 2 mean not granted, 502 and 5 refused, 504 and 6 timed
    out, 503 no connector, 429 throttled.

    \b
    example: klinket client --key-file ci-runner.json --http-proxy 127.0.0.1:3128 --socks 127.0.0.1:1080
    """
    from klinket.client import proxy_token
    from klinket.client.key_source import KeySource
    from klinket.client.serve import ProxySettings, run
    from klinket.net.carrying import with_workers

    source, token = KeySource(key_file), proxy_token.read(proxy_token_file)
    if capture == "host":
        raise CaptureImpossible("`klinket client` captures nothing of this machine", hint="use --capture off (TWINGATE_TUN=off)")
    if http_proxy is None and socks is None:
        raise InvalidInput("http-proxy", "nothing to listen on", hint="give --http-proxy, --socks or both")
    roles.set_up_logging(log_level)
    roles.forbid_core_dumps()
    settings = ProxySettings(
        None if http_proxy is None else roles.host_port("--http-proxy", http_proxy),
        None if socks is None else roles.host_port("--socks", socks),
        direct,
        token,
    )
    key = source.load()
    roles.run_until_stopped(with_workers(lambda stop: run(key, settings, stop), processes))
