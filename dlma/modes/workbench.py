"""mode=workbench: rank prompt pairs on a sample of prompts, before any training.

Each pair samples an answer under either side to the same prompts and scores both, by the stages of an ordinary run,
so that a second look computes nothing again.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Literal, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dlma import files, pipeline, records
from dlma.checks import prompt_measures
from dlma.checks.prompt_measures import MeasuredPair
from dlma.config import check
from dlma.config.build import build
from dlma.config.run_names import run_folder, split
from dlma.context import RunContext
from dlma.errors import UserError
from dlma.lab import affixes
from dlma.ranges import TwoOrMore
from dlma.records import ScoredPair
from dlma.report import workbench_page
from dlma.runs.folder import WORKBENCH, WORKBENCH_PAGE

Rank = Literal["separation", "clarity", "kl_positive", "kl_negative", "difference"]


def run(cfg: DictConfig, /, *, prompts: list[str], sample: TwoOrMore, rank_by: Rank) -> dict:
    """Measure every pair, print the ranking, and leave workbench.csv and workbench.html in the run folder."""
    if cfg.pairs.path or cfg.scored.path or "first" not in cfg.pairs or cfg.pairs.first != "positive":
        raise UserError(
            "mode=workbench samples its own pairs: use pairs=contrastive, without pairs.path or scored.path"
        )
    cell = RunContext(cfg, run_folder())
    pipeline.instruction_tune(cell)
    found = [measured(cell, *pair, sample) for name in options(prompts) for pair in pairs_of(name)]
    found = prompt_measures.ranked(found, rank_by)
    head = f"{cell.frozen.name}, {sample} prompts"
    with files.guarded(cell.folder, "hydra.run.dir"):
        files.write_bytes(cell.folder / WORKBENCH, workbench_page.csv_bytes(found))
        page = workbench_page.render(found, rank_by, title=cell.folder.name, meta=head, is_lab=cell.data.artificial)
        files.write_bytes(cell.folder / WORKBENCH_PAGE, page)
    workbench_page.print_ranking(found, rank_by, head)
    print(f"report: {cell.folder / WORKBENCH_PAGE}")
    return {"counts": cell.store.counts, "ranking": [entry.name for entry in found]}


def options(wanted: Sequence[str]) -> list[str]:
    """The names of the files of conf/prompts that were asked for, each once; a name may end in `*`."""
    found: dict[str, None] = {}
    for name in wanted:
        folder, slash, _ = name.rpartition("/")
        known = [folder + slash + option for option in _loader().get_group_options(f"prompts/{folder}".rstrip("/"))]
        matching = fnmatch.filter(known, name)
        if not matching:
            raise UserError(f"mode.prompts: there is no prompts={name} (there are {', '.join(known) or 'none'})")
        found |= dict.fromkeys(matching)
    if not found:
        raise UserError("mode.prompts: name at least one file of conf/prompts")
    return list(found)


def _loader():
    return GlobalHydra.instance().config_loader()


def pairs_of(name: str) -> list[tuple[str, DictConfig]]:
    """(name, prompts node) of each pair of a file, composed as `prompts=name` on this command line would be."""
    lines = [line for line in HydraConfig.get().overrides.task if split(line)[0] != "prompts"]
    whole = _loader().load_configuration("config", [*lines, f"prompts={name}"], run_mode=RunMode.RUN)
    node = cast(dict, OmegaConf.to_container(whole.prompts, resolve=True))
    if found := check.node_problems(node, "prompts"):
        raise UserError(f"prompts={name}: {found[0]}")
    pairs = node["pairs"]
    names = [name] if len(pairs) == 1 else [f"{name}[{number}]" for number in range(len(pairs))]
    return [(one, OmegaConf.create({**node, "pairs": [pair]})) for one, pair in zip(names, pairs)]


def measured(cell: RunContext, name: str, node: DictConfig, sample: int) -> MeasuredPair:
    """Sample and score the answers of one pair, and measure them."""
    one = cell.under(prompts=node)
    contexts = pipeline.render(one, pipeline.read_prompts(one), "train", sample)
    scored = pipeline.score(one, pipeline.make_pairs(one, contexts, contexts))
    rows = records.from_table(ScoredPair, scored.table())
    truth = build(cell.cfg.evaluation).truth(rows)
    pair = node.pairs[0]
    positive, negative = (" ".join(filter(None, pair[side].values())) for side in ("positive", "negative"))
    gap = true_gap(positive, negative) if cell.data.artificial else None
    found = prompt_measures.measures(rows, truth, build(cell.cfg.alerts))
    return MeasuredPair(name, positive, negative, found, gap)


def true_gap(positive: str, negative: str) -> float | None:
    """How much more the positive affix of the lab's grammar asks for harmless answers; None for other texts."""
    try:
        return affixes.strength(positive) - affixes.strength(negative)
    except ValueError:
        return None
