"""What a study tests beside its models: where its evaluations are kept, and what is said of a method that is not installed."""

import json

import pytest

from echotrain.config import override
from echotrain.errors import ResourceError
from echotrain.orchestration.jobs import study as job
from echotrain.orchestration.jobs.espirit import EspiritMethod, EspiritSettings
from echotrain.recipes.studies import STUDIES, find_study
from echotrain.studies.settings import override_study


@pytest.fixture
def study():
    return override_study(
        find_study("mosaic")(), ["sections=[benchmark]", "data.catalog=/scans@2", "data.trusted=[/raw]", "espirit_volumes=7"]
    )


def beside(study):
    return [test for section in study.sections for test in section.tests(study)]


def test_espirit_is_tested_at_every_acceleration_where_the_version_before_kept_it(study):
    jobs = [job._method_job(study, study.base, "/out/mosaic", test) for test in beside(study)]
    assert [each.resume_in for each in jobs] == ["/out/mosaic/espirit/test-4x-0.08-7", "/out/mosaic/espirit/test-8x-0.04-7"]
    assert [(each.split, each.num_volumes, each.title) for each in jobs] == [("test", 7, f"ESPIRiT, R = {rate}") for rate in (4, 8)]
    for each, rate, center in zip(jobs, (4.0, 8.0), (0.08, 0.04), strict=True):
        assert isinstance(each.method, EspiritMethod)
        data = override(EspiritSettings(), each.method.overrides).data
        assert (data.catalog, data.trusted, data.mask.kind) == ("/scans@2", ("/raw",), study.base.data.mask.kind)
        assert (data.mask.accelerations, data.mask.center_fractions) == ((rate,), (center,))


def test_espirit_is_given_the_coils_of_the_networks_and_kept_apart(study):
    eight = override_study(study, ["data.coils=8"])
    (job_of_eight, _) = [job._method_job(eight, eight.base, "/out/mosaic", test) for test in beside(eight)]
    assert job_of_eight.resume_in == "/out/mosaic/espirit/test-4x-0.08-7-8coils"
    assert override(EspiritSettings(), job_of_eight.method.overrides).data.coils == 8


def test_a_method_that_is_not_installed_is_named_with_the_way_to_do_without(study, monkeypatch, tmp_path):
    monkeypatch.setenv("ECHOTRAIN_BART", str(tmp_path / "missing"))
    with pytest.raises(ResourceError, match=r"; or leave ESPIRiT out: espirit_volumes=0\."):
        job._check_method(beside(study)[0], study.base.data)


@pytest.mark.parametrize("name", STUDIES)
def test_every_method_that_a_section_names_is_one_of_the_jobs(name):
    for test in beside(STUDIES[name]()):
        assert test.method in job._METHODS
        assert all(json.loads(setting.partition("=")[2]) for setting in test.settings)


def test_each_section_is_given_the_evaluations_of_its_own_tests(study, monkeypatch):
    monkeypatch.setattr(job, "_test", lambda jobs: {each.resume_in: each.title for each in jobs})
    results, tests = job._test_all(study, study.base, "/out", ())
    assert tests == {"benchmark": ["ESPIRiT, R = 4", "ESPIRiT, R = 8"]}
    assert results.baselines == tests["benchmark"]
