"""The settings of line-masked slices."""

import pyarrow as pa
import pytest

from echotrain.config import from_dict, override, to_dict
from echotrain.data.catalog.selection import Where
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import ConfigError
from echotrain.physics.masks import MaskConfig
from echotrain.training.experiment import Experiment, changed_keys, science


@pytest.mark.parametrize(
    ("volumes", "seeding", "told"),
    [
        (["file1000001", "volume-0123456789ab", "volume-0123456789ac"], "fastmri", ["2 of 3 volumes"]),
        (["file1000001"], "fastmri", []),
        (["volume-0123456789ab"], "volume", []),
    ],
)
def test_masks_by_file_name_over_pseudonyms_are_told(volumes, seeding, told):
    warnings = LinesData(mask=MaskConfig(seeding=seeding)).check(pa.table({"volume": volumes}))
    assert len(warnings) == len(told)
    assert all(words in warning for words, warning in zip(told, warnings, strict=True))


def test_what_decides_samples_is_the_mask_alone_or_the_virtual_coils_with_it():
    chosen = LinesData(catalog="c", fraction=0.5, mask=MaskConfig(kind="magic"))
    assert list(chosen.of_samples) == ["mask"]
    assert chosen.of_samples["mask"]["kind"] == "magic"
    assert dict(LinesData(coils=8).of_samples).keys() == {"mask", "coils"}


OLD = {"catalog": "c", "datasets": ["mosaic"], "anatomies": ["knee", "hip"], "contrasts": [], "mask": {"kind": "magic"}}


def test_settings_of_the_version_before_mean_what_they_meant():
    data = from_dict(LinesData, OLD)
    assert data == LinesData(catalog="c", where=Where(dataset=("mosaic",), anatomy=("knee", "hip")), mask=MaskConfig(kind="magic"))
    assert from_dict(LinesData, to_dict(data)) == data
    assert override(LinesData(), ["anatomies=[knee]", "where.contrast=[T1]"]).where == Where(anatomy=("knee",), contrast=("T1",))
    assert override(LinesData(), ["where={center: [a], anatomy: [knee]}"]).where == Where(anatomy=("knee",), center=("a",))


def test_an_old_name_beside_the_present_one_is_refused():
    with pytest.raises(ConfigError, match=r"anatomies and where\.anatomy: are one setting, given twice"):
        from_dict(LinesData, {**OLD, "where": {"anatomy": ["hip"]}})


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("where.anatomys=[knee]", "Did you mean 'where.anatomy'"),
        ("where.split=[test]", "unknown key 'where.split'"),
        ("where.field_strength=[high]", "is not a number"),
        ("where.anatomy=knee", r"where.anatomy=\[knee\]"),
    ],
)
def test_a_column_that_there_is_not_and_a_value_of_another_type_are_refused(setting, said):
    with pytest.raises(ConfigError, match=said):
        override(LinesData(), [setting])


def test_a_run_of_the_version_before_goes_on_and_one_of_other_data_does_not():
    experiment = Experiment(data=from_dict(LinesData, OLD))
    now = science(experiment)
    apart = ("data.where.", "data.balance.", "data.kind", "data.coils")
    assert now["data.coils"] == 0
    before = {path: value for path, value in now.items() if not path.startswith(apart)}
    before |= {f"data.{name}": OLD[name] for name in ("datasets", "anatomies", "contrasts")}
    assert changed_keys(before, now) == {}
    assert changed_keys(before, {**now, "data.coils": 8}) == {"data.coils": (0, 8)}
    assert changed_keys({**before, "data.anatomies": ["hip"]}, now) == {"data.where.anatomy": (["hip"], ["knee", "hip"])}
