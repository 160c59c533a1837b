"""A section is one file and one registration: nothing else knows it, and one that nobody has heard of needs nothing else."""

import ast
import dataclasses
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

import pytest

import echotrain
from echotrain.errors import CatalogError, ConfigError
from echotrain.evaluation.study_page import StudySection
from echotrain.recipes.studies import STUDIES, find_study
from echotrain.studies.mosaic import line_masked
from echotrain.studies.page import study_facts, study_sections
from echotrain.studies.registry import SECTIONS
from echotrain.studies.results import StudyResults
from echotrain.studies.section import MethodTest, Section
from echotrain.studies.settings import override_study, study_settings
from echotrain.studies.study import StudySettings, plan_study, study_points
from echotrain.training.experiment import Experiment
from tests.catalogs import write_catalog

LIBRARY = Path(echotrain.__file__).parent


def imported_by(path):
    """Return the modules of ours that a file imports."""
    tree = ast.parse(path.read_text())
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_is_known_to_its_registration_and_to_the_studies_that_name_it_alone(name):
    module = SECTIONS[name].__module__
    importers = {path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py") if module in imported_by(path)}
    assert importers <= {"studies/registry.py", "recipes/studies.py"}
    # One file, one section.
    assert [other for other, section in SECTIONS.items() if section.__module__ == module] == [name]


@pytest.mark.parametrize("name", SECTIONS)
def test_without_any_one_section_the_others_stand(name):
    # Not monkeypatch, which puts what it took out back at the end: the order of the table is the order of a page.
    with patch.dict(SECTIONS):
        del SECTIONS[name]
        study = find_study("mosaic")()
        study = dataclasses.replace(study, sections=tuple(section for section in study.sections if section.name != name))
        left = list(SECTIONS)
        assert [section.name for section in override_study(study, [f"sections={left}".replace("'", "")]).sections] == left
        with pytest.raises(ConfigError, match=f"'{name}' is none of"):
            override_study(study, [f"sections=[{name}]"])


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_is_registered_by_its_own_name_and_shadows_no_other_setting(name):
    section = SECTIONS[name]
    assert section.name == name
    assert re.fullmatch("[a-z]+", name)
    assert (section.__doc__ or "").strip()
    others = {field.name for cls in (Experiment, StudySettings) for field in dataclasses.fields(cls)} | {"sections"}
    assert not others & {field.name for field in dataclasses.fields(section)}


def test_settings_of_one_name_are_of_one_type_in_all_sections():
    types = {}
    for section in SECTIONS.values():
        for field in dataclasses.fields(section):
            assert types.setdefault(field.name, field.type) == field.type


@dataclass(frozen=True, kw_only=True)
class Warmth(Section):
    """How the learning rate matters: a section that the library has never heard of."""

    name: ClassVar[str] = "warmth"

    rates: tuple[float, ...] = (1e-3, 1e-2)

    def facts(self, study):
        return {"Rates": str(self.rates)}

    def models(self, study, table, subset):
        return {rate: {**study.model(), "optim.lr": rate} for rate in self.rates}

    def tests(self, study):
        return (MethodTest(method="espirit", settings=(), num_volumes=1, title="t", folder="f", without="leave it."),)

    def render(self, findings):
        text = f"{sorted(findings.models)} of {findings.catalog.version}, {len(findings.tests)} tests, {findings.chosen}"
        return StudySection(name=self.name, title="Warmth", text=text)


# What each section's own tests came to.
TESTS = {"warmth": (1, 2), "scaling": (3,)}


@pytest.fixture
def warmth(monkeypatch):
    monkeypatch.setitem(SECTIONS, "warmth", Warmth)


def test_a_further_section_is_named_set_trained_and_shown_like_any_other(warmth, tmp_path):
    catalog = write_catalog(tmp_path, volumes=12, splits=("train", "train", "val", "val", "test", "test")).catalog
    study = override_study(find_study("mosaic")(), ["sections=[warmth,scaling]", "rates=[1e-4,1e-5,1e-6]", "sizes=[8]", "fractions=[1.0]"])
    assert [section.name for section in study.sections] == ["scaling", "warmth"]
    assert study_settings(study)["rates"] == [1e-4, 1e-5, 1e-6]
    models = plan_study(study, catalog.table)
    assert [point.get("optim.lr") for point in study_points(models, (1,))] == [None, 1e-4, 1e-5, 1e-6]
    found = study_sections(study, catalog, models=models, results=StudyResults((1,), [], {}, []), tests=TESTS, chosen={"warmth": "s"})
    assert [section.name for section in found] == ["scaling", "warmth", "models"]
    assert found[1].text == "[1e-06, 1e-05, 0.0001] of 1, 2 tests, s"
    facts = study_facts(study, study.base, catalog, [])
    assert list(facts) == ["Data", "Models", "Training", "Undersampling", "Rates", "Tested on"]


def test_what_only_a_section_that_is_not_asked_for_heeds_is_checked_and_said_to_have_no_effect(caplog):
    study = find_study("mosaic")()
    with caplog.at_level(logging.WARNING):
        changed = override_study(study, ["sections=[dataset]", "sizes=[1,2]"])
    assert [record.getMessage() for record in caplog.records] == ["sizes=[1,2] has no effect: scaling is not among the sections"]
    assert changed == override_study(study, ["sections=[dataset]"])
    with pytest.raises(ConfigError, match="must name at least one"):
        override_study(study, ["sections=[dataset]", "sizes=[]"])


def test_a_setting_of_several_sections_is_set_in_each():
    study = override_study(find_study("mosaic")(), ["min_volumes=3"])
    assert {section.name: section.min_volumes for section in study.sections if hasattr(section, "min_volumes")} == {
        "anatomies": 3,
        "contrasts": 3,
    }


@pytest.mark.parametrize("settings", [["sections=[scaling,dataset]"], ["sections=[dataset,scaling]"]])
def test_sections_come_in_the_order_of_the_page_and_keep_what_their_study_set(settings):
    study = override_study(find_study("mosaic_simulated")(), settings)
    assert [section.name for section in study.sections] == ["dataset", "scaling"]
    assert study.sections[1].sizes == (1, 2, 4)


def test_a_section_that_a_study_does_not_ask_for_is_set_as_it_was_once_it_is_named():
    shift = override_study(find_study("mosaic_shift")(), ["sections=[shift,filtering]"])
    assert shift.sections[1].by_patches
    without = override_study(find_study("mosaic_simulated")(), ["sections=[dataset]"])
    assert override_study(without, ["sections=[scaling]"]).sections[0].sizes == (1, 2, 4)


@pytest.mark.parametrize("name", [name for name in SECTIONS if name != "dataset"])
def test_a_base_of_samples_without_a_line_mask_is_refused_before_anything_is_trained(name, monkeypatch):
    study = find_study("mosaic")()
    monkeypatch.setattr(line_masked, "LinesData", str)
    with pytest.raises(ConfigError, match=r"data.kind=kspace_lines: has no line mask"):
        dataclasses.replace(study, sections=(SECTIONS[name](),))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sections=[scalling]", "'scalling' is none of dataset, .*Did you mean 'scaling'"),
        ("sections=[]", "must name at least one, and each once"),
        ("sections=[scaling,scaling]", "must name at least one, and each once"),
    ],
)
def test_sections_that_are_none_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        override_study(find_study("mosaic")(), [setting])


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_names_its_sections_in_the_order_of_a_page(name):
    names = [section.name for section in STUDIES[name]().sections]
    assert names == sorted(names, key=list(SECTIONS).index)


def test_two_parts_are_needed_to_shift_between(tmp_path):
    catalog = write_catalog(tmp_path, volumes=6, splits=("train", "train", "val", "val", "test", "test")).catalog
    study = override_study(find_study("mosaic")(), ["sections=[shift]"])
    with pytest.raises(CatalogError, match=r"shift of parts of the data: test: must be two or more.*Leave shift out of sections="):
        plan_study(study, catalog.table)
