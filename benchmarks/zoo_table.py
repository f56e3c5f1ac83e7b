"""The table of the zoo in ``docs/attacks.md``, from the cards: ``python benchmarks/zoo_table.py [--write]``.

For each attack and setting: how many victims there are, how many images were poisoned, mean and least ASR, mean ACC and
how far it lies from the clean victims of the same data set.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from page import put

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "attacks.md"
BEGIN, END = "<!-- zoo table: benchmarks/zoo_table.py --write -->", "<!-- end of the zoo table -->"
HEAD = (
    "| data set, network | attack | setting | victims | poisoned per class | ASR, mean (least) | ACC, mean | "
    "against clean |\n"
    "|---|---|---|---|---|---|---|---|"
)

Key = tuple[str, str, str, str, str]


def cards(zoo: Path) -> list[dict[str, Any]]:
    """All cards, in the order of their paths."""
    return [json.loads(path.read_text()) for path in sorted(zoo.rglob("victim.json"))]


def group(card: dict[str, Any]) -> Key:
    """What one line is about; victims of other options than the preset's have lines of their own."""
    recipe = card["recipe"]
    data = recipe["dataset"].replace("?classes=", ", classes ")
    options = ", ".join(f"{k} {v:g}" for k, v in sorted(recipe["attack_options"].items()))
    no_count = not card["count"] or not card["poisoned_images"]  # some attacks stamp images as the training goes on
    count = "–" if no_count else f"{card['count']:.0%}" if isinstance(card["count"], float) else str(card["count"])
    name = card["attack"] + (f" ({options})" if options else "")
    setting = card["setting"] or ""
    if data == "digits":  # whose target classes differ from seed to seed
        setting = setting.partition(":")[0]
    return data, card["model"].partition("&")[0].replace("?", ", "), name, setting, count


def lines(found: list[dict[str, Any]]) -> list[str]:
    """The table's lines, data sets together, clean victims first."""
    groups: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for card in found:
        groups[group(card)].append(card)
    clean = {key[:2]: mean(c["acc"]["value"] for c in members) for key, members in groups.items() if key[2] == "none"}
    rows = []
    for key in sorted(groups, key=lambda k: (k[0], k[1], k[2] != "none", k[3], k[2], len(k[4]), k[4])):
        members = groups[key]
        acc = mean(c["acc"]["value"] for c in members)
        reached = [c["asr"]["value"] for c in members if c.get("asr")]
        asr = f"{100 * mean(reached):.1f} ({100 * min(reached):.1f})" if reached else "–"
        base = clean.get(key[:2])
        against = "–" if base is None or key[2] == "none" else f"{100 * (acc - base):+.1f}"
        cells = (
            f"{key[0]}; {key[1]}",
            key[2],
            key[3] or "–",
            str(len(members)),
            key[4],
            asr,
            f"{100 * acc:.1f}",
            against,
        )
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def table(zoo: Path) -> str:
    """Head and lines."""
    return "\n".join([HEAD, *lines(cards(zoo))])


def main() -> None:
    """Print the table, or put it into its page."""
    made = table(ROOT / "zoo")
    if "--write" not in sys.argv[1:]:
        print(made)
        return
    put(PAGE, BEGIN, END, made)


if __name__ == "__main__":
    main()
