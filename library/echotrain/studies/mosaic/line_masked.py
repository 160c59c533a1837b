"""What the sections share that train: all of them undersample by lines."""

from dataclasses import dataclass

from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import ConfigError
from echotrain.physics.masks import MaskConfig
from echotrain.studies.section import Section
from echotrain.studies.study import Study

__all__ = ["LineMasked", "line_mask_of"]


@dataclass(frozen=True, kw_only=True)
class LineMasked(Section):
    """A section whose models learn from line-masked slices."""

    def check(self, study: Study) -> None:
        """Refuse a base that learns from samples of another kind."""
        line_mask_of(study)

    def facts(self, study: Study) -> dict[str, str]:
        """Say by which masks."""
        mask = line_mask_of(study)
        pairs = zip(mask.accelerations, mask.center_fractions, strict=True)
        rates = ", ".join(f"{rate:g}× with {center:.0%} centre" for rate, center in pairs)
        return {"Undersampling": f"{mask.kind}, {rates}, where no section says otherwise"}


def line_mask_of(study: Study) -> MaskConfig:
    """Return the base's mask.

    Raises:
        ConfigError: The base learns from samples of another kind.
    """
    if not isinstance(study.base.data, LinesData):
        raise ConfigError(f"data.kind={study.base.data.kind}", "has no line mask, which this study is of", "Use kspace_lines.")
    return study.base.data.mask
