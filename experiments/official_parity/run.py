"""R and the loss curve on one text: ours, the official code's and TRL's.

    python experiments/official_parity/run.py --official CLONE    # of exlaw/DLMA
    python experiments/official_parity/run.py                     # TRL alone; nothing is written

Makes a small LLaMA with random weights, prints the figures, and with a clone writes results.json and the table of
README.md. Needs the `bench` extra (TRL).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import parity_case as case
import parity_official as official
import parity_ours as ours
import parity_trl as trl

HERE = Path(__file__).resolve().parent
RESULTS, README = HERE / "results.json", HERE / "README.md"
MARKS = ("<!-- figures:start -->\n", "<!-- figures:end -->")
LIBRARIES = ("torch", "transformers", "trl")


def measure(clone: Path | None, folder: Path, settings: case.Settings) -> dict:
    """All figures; those of the official code only where there is a clone."""
    rows = case.examples(settings.pairs, settings.seed)
    folder = case.write_model(folder, [text for row in rows for text in vars(row).values()], settings)
    model = ours.load(folder)
    margins = ours.self_reward(model, rows, eos=False)
    pairs = ours.bare_pairs(model, rows, margins)
    others = ours.ordered(pairs, settings)
    plain = ours.loss_curve(ours.load(folder), pairs, settings, margin=False)
    found = {
        "libraries": {name: version(name) for name in LIBRARIES},
        "settings": vars(settings),
        "without_margin": {"ours": plain, "trl": trl.loss_curve(folder, others, settings)},
    }
    if clone is not None:
        found |= _official(clone, folder, rows, margins, pairs, settings)
        found["without_margin"]["official"] = official.loss_curve(
            clone, folder, _examples(others), [0.0] * len(others), settings
        )
    return found


def _official(clone: Path, folder: Path, rows, margins: list[float], pairs, settings: case.Settings) -> dict:
    """R on the same rows, and the loss curve with the margin."""
    model = ours.load(folder)
    with_eos = ours.self_reward(model, rows, eos=True)
    others = ours.ordered(pairs, settings)
    given = [pair.margin for pair in others]
    return {
        "commit": official.commit_of(clone),
        "self_reward": {
            "ours": margins,
            "official": official.self_reward(clone, folder, rows),
            "ours_with_eos": with_eos,
        },
        "with_margin": {
            "ours": ours.loss_curve(model, pairs, settings, margin=True),
            "official": official.loss_curve(clone, folder, _examples(others), given, settings),
        },
    }


def _examples(pairs) -> list[case.Example]:
    return [case.Example(p.question, p.positive_text, p.negative_text) for p in pairs]


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def table(found: dict) -> str:
    """The figures as Markdown."""
    reward, curves, plain = found["self_reward"], found["with_margin"], found["without_margin"]
    settings, values = found["settings"], reward["official"]
    clamped = sum(abs(value) > settings["clamp"] for value in values)
    lines = [
        f"Official code at `{found['commit'][:7]}`; "
        + ", ".join(f"{name} {number}" for name, number in found["libraries"].items())
        + f"; CPU, float32; {len(values)} pairs, {len(plain['ours'])} steps of {settings['batch']}.",
        "",
        "| what | compared | largest difference | of values |",
        "|---|---|---|---|",
        _row("R, nats per pair", "official script, ours", reward["ours"], values),
        _row("loss per step, margin, clamp 40", "official trainer, ours", curves["ours"], curves["official"]),
        _row("loss per step, no margin", "official trainer (R = 0), ours", plain["ours"], plain["official"]),
        _row("loss per step, no margin", "TRL, ours", plain["ours"], plain["trl"]),
        "",
        f"R has a standard deviation of {statistics.pstdev(values):.1f} nats here and {clamped} of {len(values)} pairs "
        f"reach the clamp. Counting EOS, as our scorer does where the model produced it, moves R by up to "
        f"{largest_difference(reward['ours'], reward['ours_with_eos']):.2f} nats on these rows.",
    ]
    return "\n".join(lines)


def _row(what: str, who: str, one: Sequence[float], other: Sequence[float]) -> str:
    return f"| {what} | {who} | {largest_difference(one, other):.1e} | {min(other):.4f} to {max(other):.4f} |"


def write(found: dict) -> None:
    """results.json, and the table between the README's markers."""
    rounded = json.loads(json.dumps(found), parse_float=lambda text: round(float(text), 9))
    RESULTS.write_text(json.dumps(rounded, indent=1) + "\n")
    before, rest = README.read_text().split(MARKS[0])
    README.write_text(before + MARKS[0] + table(rounded) + "\n" + MARKS[1] + rest.split(MARKS[1], 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="a clone of exlaw/DLMA")
    clone = parser.parse_args().official
    with tempfile.TemporaryDirectory() as folder:
        found = measure(clone, Path(folder), case.Settings())
    if clone is None:
        plain = found["without_margin"]
        print(f"loss per step, TRL against ours: {largest_difference(plain['ours'], plain['trl']):.1e} at most")
        return
    write(found)
    print(table(found))


if __name__ == "__main__":
    main()
