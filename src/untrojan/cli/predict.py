"""``untrojan predict``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from untrojan.cli import options
from untrojan.cli.bars import progress_shown
from untrojan.cli.output import require_writable, staged
from untrojan.cli.streams import write_data, write_text
from untrojan.cli.victim import answers, load_victim, require_classes, require_shape, wanted_shape
from untrojan.errors import UsageError

if TYPE_CHECKING:
    from untrojan.guard import Decision

BATCH = 128


def predict(
    *,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[VICTIM] IMAGES...",
            help="Folder with victim.json (not with --model), then image files or folders of them.",
            show_default=False,
        ),
    ],
    guard: Annotated[
        Path, typer.Option("--guard", metavar="DIR", help="What untrojan repair wrote.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write predictions.json there.")
    ] = None,
    model: options.Model = None,
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    shape: options.InputShape = None,
    seed: options.UnusedSeed = 0,
    device: options.Device = "auto",
    output: options.PlainOutput = options.PlainFormat.text,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Classify images behind a guard: the label to use, and whether the image carries the trigger."""
    require_writable(out)
    named = model is not None or weights is not None
    victim, images = (None, paths) if named else (paths[0], paths[1:])
    if not images:
        raise UsageError("no images were given; give VICTIM and then image files or folders of them")
    classifier = load_victim(victim, model=model, weights=weights, mean=mean, std=std, shape=shape, device=device)

    from untrojan.classifier import finite_answers
    from untrojan.data import image_paths, load_images
    from untrojan.guard import load_guard
    from untrojan.storage import write_bytes

    shield = load_guard(guard, classifier)
    about = shield.require_card().victim
    names, size = classifier.class_names or about.class_names, wanted_shape(classifier) or about.input_shape
    files = image_paths(images)
    with progress_shown(quiet) as progress:
        progress.start("classifying", len(files))
        rows: list[dict[str, Any]] = []
        for start in range(0, len(files), BATCH):
            part = files[start : start + BATCH]
            pixels = load_images(part, input_shape=size)
            require_shape(about, pixels, "the guard")
            # This says it, too, if the network is not made for such images.
            require_classes(about, answers(classifier, pixels[:1]).shape[1], "the guard")
            with finite_answers(shield.networks):
                decision = shield(pixels)
            rows += _rows(part, decision, names, told=shield.flags)
            progress.advance(len(part))
    text = json.dumps(rows, indent=2) + "\n"
    if out is not None:
        with staged(out, ("predictions.json",)) as stage:
            write_bytes(stage / "predictions.json", text.encode())
    if output is options.PlainFormat.json:
        write_data(text)
    else:
        write_text("".join(_line(row, names) for row in rows))
    return 0


def _rows(files: list[Path], decision: Decision, names: tuple[str, ...] | None, *, told: bool) -> list[dict[str, Any]]:
    """``told``: whether the guard tells which images carried the trigger; if not, flag and score are null."""
    return [
        {
            "image": str(file),
            "label": label,
            "class": None if names is None else names[label],
            "triggered": triggered if told else None,
            "suspect_label": suspect,
            "score": round(score, 6) if told else None,
        }
        for file, label, triggered, suspect, score in zip(files, *(part.tolist() for part in decision), strict=True)
    ]


def _line(row: dict[str, Any], names: tuple[str, ...] | None) -> str:
    from untrojan.report.wording import plain

    def name(label: int) -> str:
        return str(label) if names is None else f"{label} ({plain(names[label])})"

    if row["triggered"] is None:
        alone = f"alone the classifier says {name(row['suspect_label'])}"
        return f"{plain(row['image'])}: {name(row['label'])}, not checked for a trigger ({alone})\n"
    flag = f"TRIGGERED (alone the classifier says {name(row['suspect_label'])})" if row["triggered"] else "no trigger"
    return f"{plain(row['image'])}: {name(row['label'])}, {flag}, score {row['score']:.3f}\n"
