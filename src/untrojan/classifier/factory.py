"""From a factory's name to a network: ``file.py:callable``, ``package.module:callable`` or ``built-in?width=16``."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

from torch import nn

from untrojan.classifier.adapters import ADAPTERS
from untrojan.classifier.state import rng_as_found
from untrojan.errors import UnsupportedError, UntrojanError, UsageError

Value = int | float | bool | str
_numbers = itertools.count()


def build_module(spec: str, *, builtins: Mapping[str, Callable[..., nn.Module]]) -> nn.Module:
    """The network that a factory makes, with its initial weights.

    spec: ``path/to/file.py:callable`` or ``package.module:callable`` (their code is run: naming them is the user's
    trust in it), ``timm:NAME``, ``torchvision:NAME`` or ``transformers:FOLDER`` (see ``adapters``), or a name in
    ``builtins``; arguments may follow as ``?width=16&classes=10`` (int, float, bool, str).
    builtins: names and callables that are known to be harmless.

    The global random states are as found afterwards; what the code prints goes to stderr; a file may import its
    neighbours, and ``sys.path`` is then as found too. Raises UsageError (no such file, callable, built-in or
    argument), UntrojanError (the code raised something), UnsupportedError (it made something else than a network).
    """
    with rng_as_found(), contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
        head, _, query = spec.partition("?")
        factory = _builtin(spec, builtins) if is_builtin(spec) else _imported(head, stack)
        arguments = _arguments(factory, query, spec)
        with _told(f"calling the factory '{head}' failed"):
            module: object = factory(**arguments)
    if not isinstance(module, nn.Module):
        raise UnsupportedError(f"the factory '{head}' must return a torch.nn.Module, got {type(module).__name__}")
    return module


def is_builtin(spec: str) -> bool:
    """Whether the notation is that of a built-in, so that building it runs no code from outside this package."""
    return ":" not in spec.partition("?")[0]


def _builtin(spec: str, builtins: Mapping[str, Callable[..., nn.Module]]) -> Callable[..., Any]:
    name = spec.partition("?")[0]
    if name not in builtins:
        hint = f"; for a file name its callable too, such as {name}:build" if name.endswith(".py") else ""
        known = ", ".join(sorted(builtins)) or "none"
        raise UsageError(f"unknown model {name!r}; built-in are: {known}; or file.py:callable, package:callable{hint}")
    return builtins[name]


def _imported(head: str, stack: contextlib.ExitStack) -> Callable[..., Any]:
    """The callable named ``place:name``; the stack keeps a file's folder importable while the factory runs."""
    place, _, name = head.rpartition(":")
    if not place or not name:
        raise UsageError(f"model '{head}': expected file.py:callable, package.module:callable or a built-in's name")
    if place in ADAPTERS and not (name.isidentifier() and _has(place, name)):
        return functools.partial(ADAPTERS[place], name)
    if place.endswith(".py") or os.sep in place or "/" in place:
        path = Path(place)
        if path.suffix != ".py" or not path.is_file():
            raise UsageError(f"model '{head}': there is no Python file '{place}'")
        path = path.resolve()
        stack.enter_context(_neighbours(path.parent))
        module = _run_file(path, place)
    else:
        module = _import_package(place)
    found: object = module
    with _told(f"looking up '{name}' in '{place}' failed"):
        for part in name.split("."):
            if not hasattr(found, part):
                known = ", ".join(_factories(module)[:8]) or "none"
                raise UsageError(f"model '{head}': '{place}' has no '{name}'; callables defined there: {known}")
            found = getattr(found, part)
    if isinstance(found, nn.Module) or not callable(found):
        kind = type(found).__name__
        raise UsageError(f"model '{head}': expected a callable that returns the network, got a {kind}")
    return found


def _has(package: str, name: str) -> bool:
    """Whether the package itself has this attribute, such as ``timm:create_model``."""
    try:
        return hasattr(importlib.import_module(package), name)
    except Exception:  # absent or broken: the adapter says so
        return False


def _run_file(path: Path, place: str) -> ModuleType:
    name = f"untrojan_factory_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{place}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and others look their module up there
    try:
        with _told(f"running '{place}' failed"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_package(place: str) -> ModuleType:
    try:
        with _told(f"importing '{place}' failed"):
            return importlib.import_module(place)
    except UntrojanError as error:
        cause = error.__cause__
        absent = cause.name if isinstance(cause, ModuleNotFoundError) else None
        if absent is not None and f"{place}.".startswith(f"{absent}."):
            raise UsageError(f"there is no module '{place}' to import (no '{absent}'); is it installed?") from None
        raise


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever foreign code raises becomes one line; what it raised is kept as the cause."""
    try:
        yield
    except UntrojanError:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())[:300]
        raise UntrojanError(f"{what}: {type(error).__name__}: {text}") from error


@contextlib.contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """Lets code import modules that lie beside it, last in line, and forgets both path and modules afterwards.

    Forgotten, because two victims may each have a ``layers.py``.
    """
    if str(folder) in sys.path:
        yield
        return
    before = set(sys.modules)
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            top = folder / name.partition(".")[0]
            origin = Path(getattr(sys.modules[name], "__file__", None) or "")
            if origin == top.with_suffix(".py") or top in origin.parents:
                del sys.modules[name]


def _arguments(factory: Callable[..., Any], query: str, spec: str) -> dict[str, Value]:
    """The keyword arguments of ``?a=1&b=2``, checked against the signature as far as there is one."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise UsageError(f"model '{spec}': expected arguments as ?name=value&name=value, got '?{query}'") from None
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some callables written in C have none
        parameters = None
    arguments: dict[str, Value] = {}
    for name, text in pairs:
        if name in arguments:
            raise UsageError(f"model '{spec}': the argument '{name}' is given twice")
        if parameters is None or name not in (known := _keywords(parameters)):
            if parameters is not None and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                raise UsageError(f"model '{spec}': unknown argument '{name}'; known are: {', '.join(known) or 'none'}")
            arguments[name] = _value(text)
        else:
            arguments[name] = _like(parameters[name].default, name, text, spec)
    return arguments


def _keywords(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    return [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _like(default: object, name: str, text: str, spec: str) -> Value:
    """The value in the type that the parameter's default has."""
    if isinstance(default, str):
        return text
    value = _value(text)
    wanted = next((kind for kind in (bool, int, float) if isinstance(default, kind)), None)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is not None and type(value) is not wanted:
        raise UsageError(f"model '{spec}': argument '{name}' takes a value like {default}, got '{text}'")
    return value


def _value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d{1,18}\.?\d{0,18}|\.\d{1,18})([eE][+-]?\d{1,3})?", text):
        return float(text)
    return text


def _factories(module: ModuleType) -> list[str]:
    found = [(name, value) for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    return [name for name, value in found if getattr(value, "__module__", None) == module.__name__]
