"""Options from outside, as keyword arguments: which there are, and of what type."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from untrojan.errors import UsageError


def checked(
    function: Callable[..., Any], options: Mapping[str, Any], where: str, *, without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Options as keyword arguments of a function or a constructor, converted to its types.

    where: what error messages call it; without: parameters that are no options. Raises UsageError for an option that
    there is not, and for a value of another type.

    >>> def bake(*, minutes: int, heat: float = 180.0): ...
    >>> checked(bake, {"minutes": "20"}, "bake")
    {'minutes': 20}
    """
    known = [name for name in inspect.signature(function).parameters if name not in ("self", *without)]
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    values = {}
    for name, value in options.items():
        if name not in known:
            raise UsageError(f"{where} has no option '{name}'; it has {', '.join(known) or 'none'}")
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(hints.get(name, Any), config=ConfigDict(allow_inf_nan=False))
            values[name] = adapter.validate_python(value)
        except ValidationError as error:
            text = error.errors()[0]["msg"]
            raise UsageError(f"{where}: {name} cannot be {value!r} ({text[:1].lower()}{text[1:]})") from None
    return values
