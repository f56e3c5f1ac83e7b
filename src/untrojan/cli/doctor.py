"""``untrojan doctor``."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from typing import Any

from untrojan.cli import options
from untrojan.cli.streams import write_data, write_text
from untrojan.version import version

PACKAGE = "untrojan"


def doctor(
    *,
    output: options.PlainOutput = options.PlainFormat.text,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Show the environment and what is missing."""
    found = examine()
    if output is options.PlainFormat.json:
        write_data(json.dumps(found, indent=2) + "\n")
    else:
        write_text("".join(f"{line}\n" for line in _lines(found)))
    return 0


def examine() -> dict[str, Any]:
    """Versions, devices and extras as they are here."""
    import torch

    devices: list[dict[str, Any]] = [
        {"name": "cpu", "cores": os.cpu_count(), "threads": torch.get_num_threads(), "bfloat16": _cpu_bfloat16()}
    ]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            devices.append(
                {
                    "name": f"cuda:{number}",
                    "model": about.name,
                    "memory_gib": round(about.total_memory / 2**30, 1),
                    "bfloat16": torch.cuda.is_bf16_supported(),
                }
            )
    required, extras = _requirements()
    return {
        "schema": "untrojan-doctor-1",
        "untrojan": version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _installed(name) for name in required},
        "devices": devices,
        "extras": {
            extra: {
                "packages": {name: _installed(name) for name in names},
                "complete": all(_installed(name) is not None for name in names),
                "install": f'pip install "{PACKAGE}[{extra}]"',
            }
            for extra, names in extras.items()
        },
    }


def _cpu_bfloat16() -> bool:
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Names of the packages that this one needs, and those of each of its extras."""
    try:
        metadata = importlib.metadata.metadata(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return [], {}
    required: list[str] = []
    extras: dict[str, list[str]] = {name: [] for name in metadata.get_all("Provides-Extra") or []}
    for line in metadata.get_all("Requires-Dist") or []:
        name = re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        names = required if extra is None else extras.setdefault(extra[1], [])
        if name != PACKAGE:
            names.append(name)
    return required, extras


def _lines(found: dict[str, Any]) -> list[str]:
    packages = ", ".join(f"{name} {version or 'MISSING'}" for name, version in found["packages"].items())
    lines = [
        f"untrojan   {found['untrojan']}",
        f"python     {found['python']} on {found['platform']}",
        f"packages   {packages or 'unknown, as untrojan is not installed'}",
    ]
    for device in found["devices"]:
        faster = "bfloat16 in hardware" if device["bfloat16"] else "no bfloat16 in hardware, so training is slower"
        about = (
            f"{device['cores']} cores, {device['threads']} threads"
            if device["name"] == "cpu"
            else f"{device['model']}, {device['memory_gib']} GiB"
        )
        lines.append(f"{device['name']:<10} {about}, {faster}")
    if len(found["devices"]) == 1:
        lines.append("cuda       no device that this PyTorch can use")
    for name, extra in found["extras"].items():
        missing = [package for package, version in extra["packages"].items() if version is None]
        state = f"missing {', '.join(missing)}; {extra['install']}" if missing else "installed"
        lines.append(f"[{name}] ".ljust(15) + state)
    return lines
