"""Where and with what something was measured."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch
from pydantic import Field

from untrojan.records import Record
from untrojan.version import version

ROOT = Path(__file__).resolve().parents[3]


class Machine(Record):
    """Where it was measured; ``threads`` are those that PyTorch may use."""

    system: str
    processor: str
    cores: int = Field(ge=1)
    threads: int = Field(ge=1)
    memory_gib: float = Field(gt=0)
    accelerator: str | None


def this_machine() -> Machine:
    """Processor, memory and accelerator; nothing that names the machine or its user."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gib=round(pages / 2**30, 1),
        accelerator=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def versions() -> dict[str, str]:
    """Of this package and what its numbers depend on."""
    return {"untrojan": version(), "torch": torch.__version__, "python": platform.python_version()}


@cache
def commit() -> str | None:
    """The commit that this package runs from, with "+" if its sources differ from it; None outside a repository."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return None
    head = _git("rev-parse", "HEAD")
    return None if head is None else head + ("+" if _git("status", "--porcelain", "--", "src") else "")


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
