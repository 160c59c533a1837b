"""The W&B workspace that a team looks at, as code: what a run logs, in the order in which one asks."""

from collections.abc import Sequence
from typing import Any

from echotrain.errors import ConfigError
from echotrain.sweeps.spec import EPOCH, Metric, SweepSpec

__all__ = ["make_workspace"]

_STEP = "global_step"


def make_workspace(where: str, metrics: Sequence[str], *, score: Metric, sweep: SweepSpec | None = None, name: str = "echotrain") -> Any:
    """Return a workspace of W&B's, to be applied with its ``save``.

    Args:
        where: ``ENTITY/PROJECT``.
        metrics: Names of the validation metrics.
        score: The one that runs are compared by.
        sweep: Adds what shows its parameters against that metric, and runs of one group together.
        name: Of the view.

    Raises:
        ConfigError: ``where`` does not name an entity and a project.
    """
    import wandb_workspaces.reports.v2 as panels  # A second, which no other verb need wait for.
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces import expr

    entity, _, project = where.partition("/")
    if not entity or not project or "/" in project:
        raise ConfigError(f"{where!r}", "must be ENTITY/PROJECT", "Write it as in the address of the project at W&B.")

    def curve(metric: str, title: str) -> Any:
        return panels.LinePlot(title=title, x=_STEP, y=[metric])

    def section(title: str, *contents: Any) -> Any:
        return workspaces.Section(name=title, panels=list(contents), is_open=True)

    sections = [
        section("Validation", *(curve(f"{EPOCH}{metric}", metric.upper()) for metric in metrics), curve(f"{EPOCH}loss", "training loss")),
        section("Pictures", panels.MediaBrowser(title="validation slices", media_keys=["validation"], num_columns=1)),
        section(
            "By anatomy",
            *(panels.LinePlot(title=f"{metric.upper()} by anatomy", x=_STEP, metric_regex=f"anatomy/.*/{metric}$") for metric in metrics),
        ),
        section("Training", curve("train/loss", "loss"), curve("train/lr", "learning rate"), curve("train/grad_norm", "gradient norm")),
        section(
            "Speed",
            curve("train/samples_per_s", "slices per second"),
            curve("train/bytes_per_s", "bytes per second from the store"),
            curve("train/data_wait_s", "wait for data per step (s)"),
            curve("train/step_s", "seconds per step"),
        ),
    ]
    if sweep is not None:
        columns = [panels.ParallelCoordinatesPlotColumn(metric=panels.Config(path)) for path in sweep.parameters]
        columns.append(panels.ParallelCoordinatesPlotColumn(metric=panels.SummaryMetric(score.name)))
        scatters = (panels.ScatterPlot(x=panels.Config(path), y=panels.SummaryMetric(score.name)) for path in sweep.parameters)
        importance = panels.ParameterImportancePlot(with_respect_to=score.name)
        sections.insert(0, section("Sweep", panels.ParallelCoordinatesPlot(columns=columns), importance, *scatters))
    groups = [] if sweep is None else [expr.Metric("Group")]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        settings=workspaces.WorkspaceSettings(x_axis=_STEP, max_runs=50),
        runset_settings=workspaces.RunsetSettings(groupby=groups),
    )
