"""Whether a sweep that is resumed is the one that was begun."""

import dataclasses

import pyarrow as pa
import pytest

from echotrain.data.catalog.rows import Catalog
from echotrain.data.samples.kspace_lines import LinesData
from echotrain.errors import ConfigError
from echotrain.orchestration.jobs.tuning import _new_description
from echotrain.storage.local import LocalStore
from echotrain.sweeps.parameters import Choice
from echotrain.sweeps.spec import SweepSpec
from echotrain.sweeps.trial import SweepFolder, new_trial
from echotrain.training.experiment import Experiment

SPEC = SweepSpec(name="s", recipe="r", method="grid", parameters={"seed": Choice(values=(1, 2))})


def catalog(checksum):
    return Catalog(pa.table({}), manifest={"checksum": checksum})


def base(where):
    return Experiment(data=LinesData(catalog=where))


@pytest.fixture
def begun(tmp_path):
    folder = SweepFolder(LocalStore(tmp_path))
    folder.describe(_new_description(folder, SPEC, base("/lab/knee@1"), 0, catalog(11), resume=False))
    folder.save(new_trial(SPEC, "runs", 0, {"seed": 1}))
    return folder


@pytest.mark.parametrize("where", ["/lab/knee@1", "s3://elsewhere/knee@4"])
def test_a_sweep_goes_on_with_the_same_rows_wherever_they_lie(begun, where):
    assert _new_description(begun, SPEC, base(where), 0, catalog(11), resume=True) is None


def test_a_sweep_does_not_go_on_with_other_rows(begun):
    with pytest.raises(ConfigError, match=r"a sweep on other data, /lab/knee@1: /lab/brain@7 has other rows"):
        _new_description(begun, SPEC, base("/lab/brain@7"), 0, catalog(12), resume=True)


def test_a_sweep_of_before_there_was_a_checksum_goes_on(begun):
    begun.describe({key: value for key, value in begun.description().items() if key != "catalog_checksum"})
    assert _new_description(begun, SPEC, base("/lab/knee@1"), 0, catalog(11), resume=True) is None


def test_a_setting_that_every_trial_sets_for_itself_may_be_left_out(begun):
    assert _new_description(begun, SPEC, dataclasses.replace(base("/lab/knee@1"), seed=5), 0, catalog(11), resume=True) is None
    with pytest.raises(ConfigError, match=r"batch_size was"):
        _new_description(begun, SPEC, dataclasses.replace(base("/lab/knee@1"), batch_size=7), 0, catalog(11), resume=True)


def test_a_sweep_over_catalogs_has_no_rows_of_its_own(tmp_path):
    spec = dataclasses.replace(SPEC, parameters={"data.catalog": Choice(values=("a@1", "b@1"))})
    assert "catalog_checksum" not in _new_description(SweepFolder(LocalStore(tmp_path)), spec, base(""), 0, None, resume=False)
