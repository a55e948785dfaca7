"""Ids in paths: numbers of at most so many digits, so that no path can cost time, or fail outside every handler."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor

#: In routes: "{id:number}".
NAME = "number"
#: Digits of a number in a path; longer ones lead nowhere.
MAX_DIGITS = 15


class _Number(Convertor[int]):
    regex = f"[0-9]{{1,{MAX_DIGITS}}}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor(NAME, _Number())
