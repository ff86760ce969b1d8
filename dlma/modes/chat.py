"""mode=chat: the base and the aligned model of a run, side by side on one's own prompt.

Each answer comes with its self-reward, log pi(a|p+,q) - log pi(a|p-,q) under the base (nats), as in the report. A
prompt that is given again draws anew. Answers are sampled in process, with the numbers of the run's held-out ones.
"""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from dlma.config.build import build
from dlma.context import RunContext
from dlma.data.text import prompt_id
from dlma.errors import Stopped, UserError
from dlma.ranges import Count, Temperature
from dlma.records import Answer, Prompt, Turn
from dlma.runs.folder import CONFIG, POLICY, TUNED, RunFolder
from dlma.screen import Console, shown

if TYPE_CHECKING:
    from dlma.evaluation.answers import Answers

ARMS = ("base", "aligned")
QUIT = ("/quit", "/exit")


def chat(
    cfg: DictConfig,
    /,
    *,
    run: str | None = None,
    prompt: str | None = None,
    temperature: Temperature | None = None,
    max_new_tokens: Count | None = None,
    trust_remote_code: bool = False,
) -> dict:
    """Answer one prompt, or prompt after prompt until the input ends."""
    folder = finished_run(run)
    settings = {"temperature": temperature, "max_new_tokens": max_new_tokens}
    both = Both(run_cell(folder, cfg, settings, trust=trust_remote_code), RunFolder(folder).sound(POLICY))
    console = Console()
    if prompt is not None:
        show(console, both.ask(prompt))
        return {}
    console.print(f"base and aligned of {folder}; an empty line or {QUIT[0]} ends", markup=False, highlight=False)
    while (asked := _read(console)) is not None:
        try:
            show(console, both.ask(asked))
        except UserError as reason:
            console.print(f"error: {reason}", markup=False, highlight=False)
    return {}


def finished_run(run: str | None) -> Path:
    """The run folder asked for, or the newest under outputs/; raises UserError when it has no policy."""
    if run is None:
        found = [path.parent for path in Path("outputs").rglob(POLICY) if RunFolder(path.parent).missing is None]
        if not found:
            raise UserError("mode.run: there is no run with a policy under outputs/: give its folder, or train first")
        return max(found, key=lambda folder: (folder / CONFIG).stat().st_mtime)
    folder = Path(run).expanduser()
    RunFolder(folder).need_finished("mode.run")
    if not (folder / POLICY).is_dir():
        raise UserError(f"mode.run={run}: it has no policy/: its method trains none, or store.keep_policies let it go")
    return folder


def run_cell(folder: Path, present: DictConfig, settings: dict[str, float | None], *, trust: bool) -> RunContext:
    """The present command's cell with the run's model, wording, seed and sampling.

    settings: replace the run's of the same name, unless null; trust: code that comes with the model may run
    """
    recorded = RunFolder(folder).recorded
    cfg = copy.deepcopy(present)
    cfg.seed = recorded.value("seed")
    cfg.recipe.max_prompt_tokens = recorded.value("recipe.max_prompt_tokens")
    given = {name: value for name, value in settings.items() if value is not None}
    cell = RunContext(cfg, folder)
    cell.spec = build(recorded.model(trust=trust, chosen=present.model._target_))
    cell.wording = build(recorded.component("prompts", "prompts", chosen=present.prompts._target_))
    cell.sampler = build({**recorded.sampling(), **given}).for_few()
    if (folder / TUNED).is_dir():  # what the run aligned, where it began with instruction tuning
        cell.spec = cell.spec.trained(RunFolder(folder).sound(TUNED))
    return cell


class Both:
    """Both arms of a run, loaded."""

    def __init__(self, cell: RunContext, policy: Path) -> None:
        self.cell = cell
        self.asked: dict[str, int] = {}
        models = {"base": cell.base(), "aligned": cell.loaded(cell.frozen.trained(policy), keep=True)}
        device = cell.runtime.trainer().strategy.root_device
        for model in models.values():
            model.network.to(device)
        self.models = models

    def ask(self, text: str) -> list[Answer]:
        """One answer of each arm; how often a prompt was asked before moves the seed on."""
        from dlma.prompts.contexts import render_contexts
        from dlma.trainer.runtime import Shard

        turns = [Turn("user", text)]
        prompt = Prompt(prompt_id(turns), turns, "test")
        times = self.asked[prompt.id] = self.asked.get(prompt.id, -1) + 1
        cell, recipe = self.cell, self.cell.cfg.recipe
        limits = {"seed": cell.cfg.seed, "max_prompt_tokens": recipe.max_prompt_tokens}
        limits["vocabulary"] = cell.frozen.vocabulary
        contexts, _ = render_contexts([prompt], cell.frozen.tokenizer, cell.wording, **limits)
        return [self._answers(arm, cell.cfg.seed + times).predict_step(Shard(0, contexts), 0)[0] for arm in ARMS]

    def _answers(self, arm: str, seed: int) -> Answers:
        from dlma.evaluation.answers import Answers

        base, model = self.models["base"], self.models[arm]
        return Answers(model, base, self.cell.sampler, arm=arm, side="plain", seed=seed)


def show(console: Console, answers: list[Answer]) -> None:
    """The answers side by side, each over its figures; text is shown as text, never as markup or terminal escapes."""
    table = Table(*(one.arm for one in answers), expand=True, show_lines=True)
    table.add_row(*(Text(shown(one.text).strip() or "(nothing)") for one in answers))
    table.add_row(*(Text(_figures(one)) for one in answers))
    console.print(table)


def _figures(answer: Answer) -> str:
    end = "" if answer.finished else ", cut at the limit"
    ratio = answer.logp - answer.logp_base
    return f"self-reward {answer.reward:+.2f} nats, log-ratio to the base {ratio:+.2f}, {len(answer.ids)} tokens{end}"


def _read(console: Console) -> str | None:
    """The next prompt, or None at the end of the input."""
    try:
        line = console.input("\n[bold]prompt>[/bold] ").strip()
    except (EOFError, KeyboardInterrupt):
        return None
    except Stopped as stop:
        if stop.number != signal.SIGINT:
            raise
        return None
    return None if not line or line in QUIT else line
