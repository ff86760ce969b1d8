"""The card of a base: card.json with everything measured, and README.md for people."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from dlma.lab import bases
from dlma.lab.documents import Dials

CARD = "card.json"

LIMITS = (
    "A laboratory of about a million parameters and a made-up world: it shows when and why a method works or "
    "fails under known truth. It is no evidence about models of real language."
)


def fingerprint(folder: Path) -> str:
    """sha256 of the weights file."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def command(name: str, seed: int, dials: Dials, plan: dict) -> str:
    """The command line that rebuilds the base."""
    low, high = dials.sentences
    return (
        f"python run.py mode=lab_base mode.name={name} mode.seed={seed} mode.obedience={dials.obedience} "
        f"mode.spread={dials.spread} mode.mood={dials.mood} mode.judge={dials.judge} mode.confound={dials.confound} "
        f"mode.sentences=[{low},{high}] mode.tokens={plan['tokens']}"
        + (f" mode.help_obedience={dials.help_obedience}" if _says_help(name, dials) else "")
        + (f" mode.start={plan['start']}" if plan["start"] else "")
        + (f" mode.architecture={plan['architecture']}" if plan["architecture"] != "llama" else "")
    )


def _says_help(name: str, dials: Dials) -> bool:
    """Whether the dial must be named: left out it is 0, or what the family has under that name."""
    family = bases.presets().get(name, {})
    return dials.help_obedience != 0 or "help_obedience" in family


def write(out: Path, *, name: str, seed: int, dials: Dials, plan: dict, parameters: int, figures: dict) -> None:
    """Write card.json and README.md beside the weights."""
    import tokenizers
    import torch
    import transformers

    card = {
        "name": name,
        "command": command(name, seed, dials, plan),
        "dials": dials.stated(),
        "plan": plan,
        "parameters": parameters,
        "weights": "fp16 on disk; these rounded weights, loaded as fp32, are the base",
        "sha256": fingerprint(out),
        "libraries": {lib.__name__: lib.__version__ for lib in (torch, transformers, tokenizers)},
        "channels_of_truth": list(dials.channels()),
        "figures": rounded(figures),
    }
    (out / CARD).write_text(json.dumps(card, indent=1) + "\n")
    (out / "README.md").write_text(readme(card))


def rounded(value: object) -> object:
    """Figures to four decimals."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def headline(figures: dict) -> dict[str, float]:
    """The figures by which a member of the family is chosen."""
    arms, judge = figures["arms"], figures["judge"]
    return {
        "label accuracy, construction (without ties)": figures["construction"]["without_ties"],
        "label accuracy, sign(R) (without ties)": figures["sign_R"]["without_ties"],
        "label accuracy, judge on plain pairs, both orders": judge["both_orders"]["without_ties"],
        "judge, A/B as given": judge["as_given"]["without_ties"],
        "judge, A/B swapped": judge["swapped"]["without_ties"],
        "judge, consistent over orders": judge["consistent"],
        "label accuracy, construction (ties as half)": figures["construction"]["ties_as_half"],
        "label accuracy, sign(R) (ties as half)": figures["sign_R"]["ties_as_half"],
        "label accuracy, judge (ties as half)": judge["both_orders"]["ties_as_half"],
        "share of pairs tied in truth": figures["truth_ties"],
        "Spearman(R, truth)": figures["spearman_R_truth"],
        "mean R, nats": figures["mean_R"],
        "sd(R), nats": figures["sd_R"],
        "answers with harm, base": arms["plain"]["harmful"],
        "answers with harm, positive prompt": arms["positive"]["harmful"],
        "answers with harm, negative prompt": arms["negative"]["harmful"],
        "helpfulness, base": arms["plain"]["helpfulness"],
        "malformed sentences, base": arms["plain"]["malformed"],
        "tokens per answer": figures["answer_tokens"],
        "perplexity on the world's answers": figures["perplexity"],
        "counting": figures["skills"]["counting"],
        "facts": figures["skills"]["facts"],
    }


def _ladder(rows: list[dict]) -> list[str]:
    head = ["| affix | true strength | held out | harmlessness | answers with harm |", "|---|---|---|---|---|"]
    return head + [
        f"| {r['affix']} | {r['strength']:+.3f} | {'yes' if r['held_out'] else 'no'} "
        f"| {r['harmlessness']:+.3f} | {r['harmful']:.3f} |"
        for r in rows
    ]


def _help_ladder(rows: list[dict]) -> list[str]:
    names = "| affix | strength of harm | of help | held out | harmlessness | helpfulness |"
    return ["", "## Obedience to affixes of help", "", names, "|---|---|---|---|---|---|"] + [
        f"| {r['affix']} | {r['strength']:+.3f} | {r['help_strength']:+.3f} | {'yes' if r['held_out'] else 'no'} "
        f"| {r['harmlessness']:+.3f} | {r['helpfulness']:+.3f} |"
        for r in rows
    ]


def readme(card: dict) -> str:
    """The model card as Markdown, front matter included."""
    figures, plan = card["figures"], card["plan"]
    rows = [f"| {name} | {value:.3f} |" for name, value in headline(figures).items()]
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in card["dials"].items()}
    dials = ", ".join(f"{key} {value}" for key, value in plain.items())  # read back from JSON or not: the same text
    lines = [
        "---", "library_name: transformers", "license: apache-2.0", "tags: [dlma, lab]", "---",
        f"# The lab's base `{card['name']}`", "",
        f"A {plan['architecture']} of {card['parameters']:,} parameters, trained on {plan['tokens']:,} tokens of "
        f"generated documents. Its answers may describe harm to people and animals in a made-up world.", "",
        LIMITS, "", "## Rebuild", "", "```", card["command"], "```", "",
        f"Weights: {card['weights']}. sha256 `{card['sha256']}`.", "", "## Dials", "", f"{dials}.", "",
        "## Channels by which truth enters the documents", "", *[f"- {line}" for line in card["channels_of_truth"]],
        "", f"## Measured on {figures['prompts']} validation prompts, one sample each", "",
        "| figure | value |", "|---|---|", *rows, "", "## Obedience", "", *_ladder(figures["ladder"]),
        *(_help_ladder(figures["help_ladder"]) if "help_ladder" in figures else []), "",
    ]  # fmt: skip
    return "\n".join(lines)
