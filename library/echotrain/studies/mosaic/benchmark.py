"""The benchmark: several methods on the same volumes, at each acceleration (5.1, Table 3, Figure 6)."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from echotrain.config import to_dict
from echotrain.data.samples.measured import MeasuredData
from echotrain.errors import ConfigError
from echotrain.evaluation.comparison import compare
from echotrain.evaluation.results import Evaluation, Example
from echotrain.evaluation.study_page import Exhibit, StudySection
from echotrain.physics.masks import MaskConfig
from echotrain.studies.mosaic.line_masked import LineMasked, line_mask_of
from echotrain.studies.section import Findings, MethodTest
from echotrain.studies.study import Study, Values, check_listed
from echotrain.studies.wording import PAIRED, SPREAD

__all__ = ["Benchmark", "benchmark_section"]


@dataclass(frozen=True, kw_only=True)
class Benchmark(LineMasked):
    """Networks trained at each acceleration, others beside them, and ESPIRiT.

    Attributes:
        accelerations: (R, centre fraction) pairs.
        rivals: Further networks, at the first acceleration, each as the settings that make it of the base:
            ``{"task.kind": "bridge", "model.kind": "bridge", …}`` for LBM.
        espirit_volumes: Volumes that ESPIRiT reconstructs, at every acceleration; 0 leaves it out.
    """

    name: ClassVar[str] = "benchmark"

    accelerations: tuple[tuple[float, float], ...] = ((4, 0.08), (8, 0.04))
    rivals: tuple[Mapping[str, Any], ...] = ()
    espirit_volumes: int = 0

    def __post_init__(self) -> None:
        check_listed("accelerations", self.accelerations)
        if self.espirit_volumes < 0:
            raise ConfigError(f"espirit_volumes={self.espirit_volumes}", "must be at least 0", "Use 0 to leave ESPIRiT out.")

    def check(self, study: Study) -> None:
        """Refuse accelerations that no mask has."""
        for pair in self.accelerations:
            _mask(study, pair)

    def models(self, study: Study, table: pa.Table, subset: str) -> Mapping[Any, Values]:
        """Return the base's network at every acceleration, and the rivals at the first."""
        networks: dict[Any, Values] = {pair: _at(study, pair) for pair in self.accelerations}
        shared = {path: value for path, value in networks[self.accelerations[0]].items() if path != study.size}
        return {**networks, **{f"rival {number}": {**shared, **rival} for number, rival in enumerate(self.rivals)}}

    def tests(self, study: Study) -> tuple[MethodTest, ...]:
        """Return the tests of ESPIRiT."""
        return tuple(self._espirit(study, pair) for pair in self.accelerations if self.espirit_volumes)

    def _espirit(self, study: Study, pair: tuple[float, float]) -> MethodTest:
        acceleration, center = pair
        # The coils of the networks, beside which it stands.
        coils = study.base.data.coils if isinstance(study.base.data, MeasuredData) else 0
        return MethodTest(
            method="espirit",
            settings=(f"data.mask={json.dumps(to_dict(_mask(study, pair)))}", *([f"data.coils={coils}"] if coils else [])),
            num_volumes=self.espirit_volumes,
            title=f"ESPIRiT, R = {acceleration:g}",
            folder=f"espirit/{study.split}-{acceleration:g}x-{center:g}-{self.espirit_volumes}{f'-{coils}coils' if coils else ''}",
            without="leave ESPIRiT out: espirit_volumes=0.",
        )

    def render(self, findings: Findings) -> StudySection:
        """Show all methods on the volumes that they share."""
        models = list(findings.models.values())
        networks = [evaluation for evaluation in map(findings.results.of, models) if evaluation is not None]
        # Networks of several accelerations are one method, as ESPIRiT is.
        alike = [
            dataclasses.replace(e, methods={name: dataclasses.replace(method, checkpoint="") for name, method in e.methods.items()})
            for e in networks
        ]
        return benchmark_section([*findings.tests, *alike], missing=findings.results.missing(models))


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
        exhibits.append(
            Exhibit(
                name="benchmark",
                title="Methods",
                content=found.quality,
                caption=" ".join((SPREAD, "The best of a column is bold.", *found.notes, *([found.unpaired] if found.unpaired else []))),
            )
        )
        if found.pairs is not None:
            exhibits.append(Exhibit(name="benchmark-pairs", title="Pairs", content=found.pairs, caption=PAIRED))
    return StudySection(name="benchmark", title="Benchmark", text=text, exhibits=tuple(exhibits), examples=examples, missing=tuple(missing))


def _mask(study: Study, pair: tuple[float, float]) -> MaskConfig:
    """Return the base's mask at an acceleration."""
    return dataclasses.replace(line_mask_of(study), accelerations=(pair[0],), center_fractions=(pair[1],))


def _at(study: Study, pair: tuple[float, float]) -> Values:
    """Return the values of the base's network at an acceleration."""
    if _mask(study, pair) == line_mask_of(study):
        return study.model()
    return {**study.model(), "data.mask": {"accelerations": [pair[0]], "center_fractions": [pair[1]]}}
