"""The sections of a study of one data set, as those of MosaicMRI (arXiv:2604.11762): what each shows, from evaluations alone."""

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from echotrain.evaluation.comparison import compare
from echotrain.evaluation.results import Evaluation, Example, VolumeResult, shared_metrics
from echotrain.evaluation.scaling import ScalingPoint, scaling_chart, scaling_table
from echotrain.evaluation.statistics import mean_of_repeats
from echotrain.evaluation.stored import score_csv
from echotrain.evaluation.study_page import Exhibit, StudySection
from echotrain.evaluation.tables import Section, Table
from echotrain.evaluation.training_sets import TrainingSet, composition_table, training_set_table
from echotrain.evaluation.transfer import transfer_chart, transfer_matrix, transfer_table
from echotrain.metrics.table import METRICS, drawn
from echotrain.studies.mosaic.composition import anatomy_table, geometry_table, split_table, subject_caption, subject_table, volumes_of
from echotrain.studies.mosaic.composition_figures import composition_chart, diversity_chart
from echotrain.studies.mosaic.montage import Montage, montage_chart
from echotrain.sweeps.trial import Trial

__all__ = ["benchmark_section", "dataset_section", "filtering_section", "models_section", "scaling_section", "transfer_section"]

Groups = Mapping[str, Callable[[VolumeResult], bool]]

_SPREAD = "Mean ± standard deviation over volumes."
_PAIRED = (
    "Mean paired difference over volumes with its 95% bootstrap interval below; p of Wilcoxon’s signed-rank test, not corrected for the "
    "number of tests, and – where there are fewer than six volumes."
)


def dataset_section(table: pa.Table, montage: Montage | None = None) -> StudySection:
    """Return what the catalog holds (Tables 2 and 6, Figures 1 and 5, A.3).

    Args:
        table: All rows of the catalog.
        montage: Examples of it; None shows none.
    """
    volumes = volumes_of(table)
    exhibits = [
        Exhibit(name="volumes", title="Volumes by anatomy group", content=composition_chart(volumes), caption="By split."),
        Exhibit(name="splits", title="Splits", content=split_table(volumes), caption="No patient is in two of them."),
        Exhibit(
            name="diversity",
            title="Diversity",
            content=diversity_chart(volumes),
            caption="Boxes span the quartiles; the area of a dot is the share of the group’s volumes.",
        ),
        Exhibit(name="anatomies", title="Anatomy groups", content=anatomy_table(volumes), caption="Coils and slices: median (least–most)."),
        Exhibit(
            name="geometry",
            title="Geometry",
            content=geometry_table(volumes),
            caption="Mean in-plane field of view and resolution; x is the readout, y the phase-encode direction.",
        ),
        Exhibit(name="subjects", title="Sex and weight", content=subject_table(volumes), caption=subject_caption(volumes)),
    ]
    if montage is not None and montage.tiles:
        exhibits.insert(1, Exhibit(name="montage", title="Examples", content=montage_chart(montage.tiles), caption=montage.caption))
    text = "What the catalog holds, by the headers of its scans (MosaicMRI, Tables 2 and 6, Figures 1 and 5, and A.3)."
    kept = tuple(exhibit for exhibit in exhibits if not isinstance(exhibit.content, Table) or any(s.rows for s in exhibit.content.sections))
    return StudySection(name="dataset", title="The data", text=text, exhibits=kept)


def benchmark_section(evaluations: Sequence[Evaluation], *, missing: Sequence[str] = ()) -> StudySection:
    """Return several methods on the same volumes (Table 3, Figure 6)."""
    text = (
        "Every method on the volumes that all of them have reconstructed at an acceleration (MosaicMRI, Table 3 and Figure 6); networks "
        "are trained at the acceleration that they are tested at."
    )
    exhibits: list[Exhibit] = []
    examples: tuple[Example, ...] = ()
    if evaluations:
        found = compare(evaluations)
        examples = found.examples
        exhibits.append(Exhibit(name="benchmark", title="Methods", content=found.quality, caption=" ".join((_SPREAD, *found.notes))))
        if found.pairs is not None:
            exhibits.append(Exhibit(name="benchmark-pairs", title="Pairs", content=found.pairs, caption=_PAIRED))
    return StudySection(name="benchmark", title="Benchmark", text=text, exhibits=tuple(exhibits), examples=examples, missing=tuple(missing))


def scaling_section(points: Sequence[ScalingPoint], *, is_val_cut: bool = False, missing: Sequence[str] = ()) -> StudySection:
    """Return quality over data and network size (Figure 2).

    Args:
        points: What was measured.
        is_val_cut: Whether a model of a fraction also validated on that fraction alone.
        missing: What could not be had.
    """
    validated = "the same fraction of the validation volumes" if is_val_cut else "all validation volumes"
    text = (
        "Networks of several sizes on nested fractions of the training volumes, all for the same number of epochs, so that a smaller "
        f"fraction also means fewer steps (MosaicMRI, 5.2 and Figure 2). The weights of each were chosen on {validated}, and all "
        "are tested on the same volumes."
    )
    exhibits = [
        exhibit
        for metric in drawn(shared_metrics([point.evaluation for point in points]))
        for exhibit in (
            Exhibit(
                name=f"scaling-{metric}",
                title=f"{METRICS[metric].heading} over the data",
                content=scaling_chart(points, lambda attributes: attributes.anatomy, metric=metric),
                caption="A curve per anatomy over its test volumes (how many), with the 95% bootstrap interval of their mean.",
            ),
            Exhibit(name=f"scaling-{metric}-table", title="All volumes", content=scaling_table(points, metric=metric), caption=_SPREAD),
        )
    ]
    largest = max((point.x for point in points), default=0.0)
    whole = {
        panel: [p.evaluation for p in points if (p.panel, p.x) == (panel, largest)] for panel in dict.fromkeys(p.panel for p in points)
    }
    sizes = [mean_of_repeats(repeats) for repeats in whole.values() if repeats]
    pairs = compare(sizes).pairs if len(sizes) > 1 else None
    if pairs is not None:
        title = f"Network sizes, each trained on {largest:.0%} of the volumes"
        exhibits.append(Exhibit(name="scaling-pairs", title=title, content=pairs, caption=_PAIRED))
    return StudySection(name="scaling", title="Data and network size", text=text, exhibits=tuple(exhibits), missing=tuple(missing))


def transfer_section(
    name: str, title: str, text: str, evaluations: Mapping[str, Evaluation], groups: Groups, *, missing: Sequence[str] = ()
) -> StudySection:
    """Return models of parts of the data, tested on every part (Figures 3 and 4, Table 4).

    Args:
        name: Of the section and its files.
        title: Its heading.
        text: What was done.
        evaluations: What was trained on (``all`` for everything) to the evaluation of that model.
        groups: Parts to test on, in the order of the rows.
        missing: What could not be had.
    """
    exhibits = []
    for place, metric in enumerate(drawn(shared_metrics(list(evaluations.values())))):
        matrix = transfer_matrix(evaluations, groups, metric=metric)
        heading, outlined = METRICS[metric].heading, _outlined(metric)
        if place == 0:
            caption = " ".join(
                ("Mean over the volumes of a row, darker the closer to its best.", *(f"Outlined: {text}" for text in outlined))
            )
            exhibits.append(Exhibit(name=name, title=heading, content=transfer_chart(matrix, heading), caption=caption))
        caption = " ".join((_SPREAD, *(f"Starred: {text}" for text in outlined)))
        exhibits.append(Exhibit(name=f"{name}-{metric}", title=heading, content=transfer_table(matrix), caption=caption))
    return StudySection(name=name, title=title, text=text, exhibits=tuple(exhibits), missing=tuple(missing))


def _outlined(metric: str) -> tuple[str, ...]:
    """Say what of a transfer matrix is outlined; nothing where nothing is."""
    entry = METRICS[metric]
    near = "" if entry.near is None else entry.with_unit(f"{entry.near:g}")
    return (f"what comes within {near} of the best of its row, the model of all data aside.",) if near else ()


def filtering_section(
    sets: Sequence[TrainingSet],
    fits: Callable[[VolumeResult], bool],
    *,
    queries: str,
    composition: tuple[Mapping[str, int], Mapping[str, int]],
    text: str,
    missing: Sequence[str] = (),
) -> StudySection:
    """Return models of several training sets on one kind of volume (Table 5), and what the filtered set consists of.

    Args:
        sets: The first one is what the others are compared with.
        fits: Which volumes count.
        queries: Their name.
        composition: Slices by anatomy of the filtered set, and of what it was chosen from.
        text: What was done.
        missing: What could not be had.
    """
    chosen, pool = composition
    exhibits = [Exhibit(name="filtering-composition", title="The filtered set", content=composition_table(chosen, pool))]
    if sets:
        table = training_set_table(sets, fits, sum(pool.values()))
        caption = f"{_SPREAD} Differences are from the first row. {_PAIRED}"
        exhibits.insert(0, Exhibit(name="filtering", title=f"Tested on {queries}", content=table, caption=caption))
    return StudySection(name="filtering", title="Data filtering", text=text, exhibits=tuple(exhibits), missing=tuple(missing))


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
