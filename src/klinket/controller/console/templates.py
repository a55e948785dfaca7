"""Templates: escaped throughout, a missing value is an error, and times, sizes and durations in people's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from klinket.controller.console import charts
from klinket.controller.console.navigation import NAVIGATION
from klinket.controller.console.static import StaticFiles
from klinket.controller.console.words import bytes_in_words, duration_in_words, exact_time, failure_in_words, relative_time
from klinket.domain.moments import iso
from klinket.domain.role import Permission

FOLDER = Path(__file__).parent / "templates"


class Templates:
    """`network`: the name of the deployment, shown on every page."""

    def __init__(self, static: StaticFiles, network: str) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._environment.filters.update(
            iso=iso,
            exact_time=exact_time,
            relative_time=relative_time,
            in_bytes=bytes_in_words,
            in_time=duration_in_words,
            failure_in_words=failure_in_words,
            capitalize_first=lambda text: text[:1].upper() + text[1:],
        )
        self._environment.globals.update(
            static=static.address, network=network, navigation=NAVIGATION, charts=charts, Permission=Permission
        )

    def render(self, template: str, **values: Any) -> str:
        """Return the text of a template."""
        return self._environment.get_template(template).render(values)
