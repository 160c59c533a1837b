"""What stands at the end of every study's page: all models, and all scores as a file."""

from collections.abc import Sequence

from echotrain.evaluation.results import Evaluation
from echotrain.evaluation.stored import score_csv
from echotrain.evaluation.study_page import Exhibit, StudySection
from echotrain.evaluation.tables import Section, Table
from echotrain.metrics.table import METRICS
from echotrain.sweeps.trial import Trial

__all__ = ["models_section"]


def models_section(trials: Sequence[Trial], evaluations: Sequence[Evaluation]) -> StudySection:
    """Return every model of the study, with its best validation score or the reason why there is none, and every test score as a file.

    Args:
        trials: The models.
        evaluations: Of them, and of methods that were not trained.
    """
    names = sorted({name for trial in trials for name in trial.scores})
    headings = {name: METRICS[name].heading if name in METRICS else name for name in names}
    rows = [
        (
            trial.name,
            f"{trial.state}\n{trial.reason}".strip(),
            str(trial.epoch or ""),
            *(f"{trial.scores[name]:.4g}" if name in trial.scores else "" for name in names),
            f"{trial.wall_s:.0f}" if trial.wall_s else "",
        )
        for trial in trials
    ]
    table = Table(
        columns=(
            "Model",
            "State",
            "Epoch",
            *(f"{headings[name]}\nvalidation" for name in names),
            "Time\ns",
        ),
        sections=(Section(rows=tuple(rows)),),
        num_labels=2,
    )
    caption = "Scores of the epoch whose weights were tested, on the volumes that it validated on; time of the last start."
    return StudySection(
        name="models",
        title="Models",
        text="Every model that was trained; scores.csv has what each of them, and each method beside them, came to on every test volume.",
        exhibits=(Exhibit(name="models", title="All", content=table, caption=caption),),
        files={"scores.csv": score_csv(evaluations).encode()},
    )
