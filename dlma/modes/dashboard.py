"""`mode=dashboard`: a W&B workspace and report as code (method comparison, margin panel, samples).

Both are built from one list of sections, so that what is printed is what is saved. They are saved for those who are
logged in; else nothing is asked of anybody, and the page says what it would build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dlma.errors import UserError
from dlma.logger import weights_and_biases
from dlma.ranges import Positive

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces

NOBODY = "your-entity"  # stands for the entity until somebody is logged in
TITLE = "DLMA: methods compared"


@dataclass(frozen=True)
class Plot:
    """One panel: bars of summary figures by method, one figure against another, curves over steps, or a table."""

    kind: str
    title: str
    metrics: tuple[str, ...]


SECTIONS: dict[str, tuple[Plot, ...]] = {
    "Method comparison": (
        Plot("bars", "answers with a harmful sentence, by method", ("eval/aligned/harmful",)),
        Plot("bars", "helpfulness, by method", ("eval/aligned/helpfulness",)),
        Plot("bars", "perplexity under the base, by method", ("eval/aligned/perplexity",)),
        Plot("bars", "KL to the base, by method", ("eval/aligned/kl",)),
        Plot("scatter", "harm against KL", ("eval/aligned/kl", "eval/aligned/harmful")),
    ),
    "Margin panel": (
        Plot("curves", "reward margin in training", ("train/reward_margin",)),
        Plot(
            "curves",
            "rewards of chosen and rejected: beta times the log-ratio",
            ("train/chosen_reward", "train/rejected_reward"),
        ),
        Plot("curves", "loss", ("train/loss",)),
        Plot("bars", "self-reward R of the answers (self-reported)", ("eval/aligned/self_reward",)),
        Plot("bars", "self-reward does not track the truth (1: alert)", ("alerts/unfaithful_reward",)),
        Plot("table", "scored pairs with R", ("scored_pairs",)),
    ),
    "Samples": (Plot("table", "answers side by side", ("samples",)),),
}


def run(cfg: DictConfig, /, *, project: str, entity: str | None, seconds: Positive, group: str | None = None) -> dict:
    """Build both; save them if a key is there and the server answers, else describe them.

    project, entity: where the runs are; null entity: the default of whoever is logged in
    group: the sweep to show; null for all runs
    seconds: how long the server may take to answer at all
    """
    reason = _why_not(seconds)
    owner = entity or (NOBODY if reason else _default_entity())
    workspace, report = build(project, owner, group)
    if reason is None:
        workspace.save()
        report.save()
        print(f"workspace: {workspace.url}\nreport: {report.url}")
        return {"saved": True}
    print(f"W&B: {reason}; nothing is saved. It would build, for {owner}/{project}{_of(group)}:")
    print(describe())
    return {"saved": False}


def _why_not(seconds: float) -> str | None:
    url = weights_and_biases.server()
    if weights_and_biases.api_key(url) is None:
        return "no API key (run `wandb login` once, or set WANDB_API_KEY)"
    if not weights_and_biases.reachable(url, seconds):
        return f"{url} cannot be reached (tried for {seconds:g} s at the most)"
    return None


def _default_entity() -> str:
    import wandb

    found = wandb.Api().default_entity
    if found is None:
        raise UserError("logger.wandb.entity: you have no default entity at W&B: name one")
    return found


def _of(group: str | None) -> str:
    return f", sweep {group}" if group else ""


def describe() -> str:
    """The sections and their panels, as text."""
    lines = [f'a workspace and a report "{TITLE}" with']
    for name, plots in SECTIONS.items():
        lines += [f"  {name}", *(f"    {plot.kind:<8} {plot.title}: {', '.join(plot.metrics)}" for plot in plots)]
    return "\n".join(lines)


def build(project: str, entity: str, group: str | None) -> tuple[workspaces.Workspace, reports.Report]:
    """The workspace and the report, unsaved; nothing is asked of the network."""
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
        from wandb_workspaces import expr
    except ImportError:
        raise UserError("mode=dashboard needs wandb-workspaces: pip install 'dlma[dashboard]'") from None

    filters = [expr.Metric("Group") == group] if group else []
    sections = [
        ws.Section(name=name, panels=[_panel(plot) for plot in plots], is_open=True) for name, plots in SECTIONS.items()
    ]
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=TITLE,
        sections=sections,
        runset_settings=ws.RunsetSettings(filters=filters, groupby=[expr.Config("method")]),
    )
    runset = wr.Runset(entity=entity, project=project, name=group or "all runs", filters=filters)
    blocks: list[Any] = [
        wr.P(
            "One run per cell; bars are means over seeds with the standard error. The report that a sweep"
            " itself leaves has paired tests and 95 % intervals over prompts and seeds: trust that one."
        )
    ]
    for name, plots in SECTIONS.items():
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runset], panels=_placed([_panel(plot) for plot in plots]))]
    return workspace, wr.Report(project=project, entity=entity, title=TITLE, blocks=blocks, width="fluid")


def _panel(plot: Plot):
    import wandb_workspaces.reports.v2 as wr

    if plot.kind == "bars":
        return wr.BarPlot(
            title=plot.title,
            metrics=[wr.SummaryMetric(name) for name in plot.metrics],
            groupby=wr.Config("method"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stderr",
        )
    if plot.kind == "scatter":
        x, y = (wr.SummaryMetric(name) for name in plot.metrics)
        return wr.ScatterPlot(title=plot.title, x=x, y=y)
    if plot.kind == "curves":
        return wr.LinePlot(title=plot.title, x="train/step", y=list(plot.metrics))
    return wr.WeavePanelSummaryTable(table_name=plot.metrics[0], layout=wr.Layout(w=24, h=12))


def _placed(panels: Sequence) -> list:
    """Two panels to a line; a table takes a line of its own."""
    import wandb_workspaces.reports.v2 as wr

    x = y = 0
    for panel in panels:
        wide = panel.layout.w == 24
        if wide and x:
            x, y = 0, y + 8
        panel.layout = wr.Layout(x=x, y=y, w=24 if wide else 12, h=12 if wide else 8)
        x, y = (0, y + panel.layout.h) if wide or x else (12, y)
    return list(panels)
