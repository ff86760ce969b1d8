"""mode=lab_base: builds a member of the lab's family of bases, or one of your own, and prints its card's figures."""

from __future__ import annotations

from pathlib import Path

from dlma.config import run_names
from dlma.errors import UserError
from dlma.lab import card
from dlma.lab.bases import BUILT, presets
from dlma.lab.build import BasePlan, build_base, sized
from dlma.lab.documents import Dials
from dlma.ranges import Count, NotNegative, Number, Seed, Share, TwoOrMore

OPTIONAL = {"start": None, "architecture": "llama", "help_obedience": 0.0}  # what a base of one's own need not say


def run(
    _cfg: object,
    /,
    *,
    name: str,
    seed: Seed,
    out: str | None,
    obedience: Number | None,
    spread: Share | None,
    mood: NotNegative | None,
    judge: Share | None,
    confound: Number | None,
    help_obedience: NotNegative | None,
    sentences: list[Count] | None,
    tokens: Count | None,
    start: str | None,
    architecture: str | None,
    prompts: TwoOrMore = 1000,
) -> None:
    """Any dial that is not null stands in place of the family's."""
    given = {
        "obedience": obedience, "spread": spread, "mood": mood, "judge": judge, "confound": confound,
        "sentences": sentences, "tokens": tokens, "start": start, "architecture": architecture,
        "help_obedience": help_obedience,
    }  # fmt: skip
    if (wrong := run_names.unfit(name)) or Path(name).name != name:
        raise UserError(f"mode.name: {wrong or f'{name} is no plain name of a folder'}")
    values = resolve(name, given)
    total, rest = int(values.pop("tokens")), {key: values.pop(key) for key in ("start", "architecture")}
    dials = Dials(**{**values, "sentences": tuple(values["sentences"])})
    folder = Path(out) if out else BUILT / name
    if folder.is_dir() and any(folder.iterdir()) and not (folder / card.CARD).is_file():
        raise UserError(f"mode.out={folder}: holds other things than a base: name a folder of its own")
    plan = sized(BasePlan(tokens=total, seed=seed, **rest), dials)
    figures = build_base(folder, name=name, dials=dials, plan=plan, prompts=prompts)
    for line, value in card.headline(figures).items():
        print(f"{line:52s} {value:8.3f}")
    print(f"base: {folder}")


def resolve(name: str, given: dict) -> dict:
    """The preset's values with what was given in their place; a new name must have every value given."""
    family = presets()
    missing = sorted(key for key, value in given.items() if value is None and key not in OPTIONAL)
    if name not in family and missing:
        raise UserError(
            f"mode.name={name}: not one of {', '.join(family)}; a base of your own needs "
            f"{', '.join(f'mode.{key}=' for key in missing)}"
        )
    values = {
        **OPTIONAL,
        **family.get(name, {}),
        **{key: value for key, value in given.items() if value is not None},
    }
    low, high = tuple(values["sentences"]) if len(values["sentences"]) == 2 else (0, 0)
    if not 1 <= low <= high:
        raise UserError(f"mode.sentences={list(values['sentences'])}: must be two numbers, least and most, from 1 up")
    return values
