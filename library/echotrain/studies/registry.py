"""Every section by its name, in the order of a page."""

from echotrain.studies.mosaic.anatomies import Anatomies
from echotrain.studies.mosaic.benchmark import Benchmark
from echotrain.studies.mosaic.contrasts import Contrasts
from echotrain.studies.mosaic.data import Dataset
from echotrain.studies.mosaic.filtering import Filtering
from echotrain.studies.mosaic.scaling import Scaling
from echotrain.studies.mosaic.shift import Shift
from echotrain.studies.section import Section

__all__ = ["SECTIONS"]

SECTIONS: dict[str, type[Section]] = {
    section.name: section for section in (Dataset, Benchmark, Scaling, Anatomies, Contrasts, Shift, Filtering)
}
