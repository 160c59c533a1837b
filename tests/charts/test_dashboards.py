"""The Grafana dashboards: every expression asks for metrics and labels that exist, and every panel can be read."""

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

from echotrain.orchestration.runtime.prometheus import COUNTERS, GAUGES
from tests.charts.exported_metrics import OPTIONAL, TARGET_LABELS, labels_of
from tests.charts.promql import asked
from tests.charts.promtool import run_promtool

CHART = Path(__file__).resolve().parents[2] / "helm" / "echotrain"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]


def test_there_is_one_for_training_and_one_for_the_cluster():
    assert DASHBOARDS.keys() == {"training", "cluster"}


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_asks_for_metrics_and_labels_that_exist(panel):
    for target in panel["targets"]:
        matched, grouped = asked(target["expr"])
        assert matched, target["expr"]
        known = set(TARGET_LABELS)
        for metric, labels in matched.items():
            has = labels_of(metric)
            assert has is not None, f"nothing exports {metric}"
            assert labels <= has | TARGET_LABELS, f"{metric} has no {labels - has - TARGET_LABELS}"
            known |= has
        assert grouped <= known, f"{grouped - known} in {target['expr']}"
        shown = set(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]))
        assert shown <= grouped, f"the legend of {target['expr']} names {shown - grouped}, by which nothing is grouped"


def test_prometheus_can_read_every_expression(tmp_path):
    expressions = [target["expr"] for param in PANELS for target in param.values[0]["targets"]]
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run_promtool("check", "rules", str(tmp_path / "rules.yaml"))


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_stays_within_the_chosen_clusters_and_says_what_it_needs(panel):
    for target in panel["targets"]:
        for metric, labels in asked(target["expr"]).matched.items():
            if metric in OPTIONAL:
                assert "namespace" in labels
                assert panel["description"].startswith("Optional: needs "), metric
            else:
                assert {"namespace", "ray_io_cluster"} <= labels, f"{metric} in {target['expr']}"


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_title_a_unit_a_description_and_the_chosen_data_source(panel):
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for part in (panel, *panel["targets"]):
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    references = [target["refId"] for target in panel["targets"]]
    assert len(references) == len(set(references))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_on_the_grid_without_overlap(name):
    panels = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        cells = itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        for cell in cells:
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_provisioned_and_linked_to(name):
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"echotrain-{name}"
    assert dashboard["title"] == f"echotrain {name}"
    assert dashboard["schemaVersion"] >= 38
    assert "id" not in dashboard, "Grafana gives the id"
    for link in dashboard["links"]:
        assert link["url"].removeprefix("/d/") in {other["uid"] for other in DASHBOARDS.values()}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_variable_is_declared_used_and_taken_from_a_metric_that_exists(name):
    dashboard = DASHBOARDS[name]
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace", "cluster", "run"][: len(variables)]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([dashboard["panels"], [v.get("query") for v in variables.values()]]))) - {"__all"}
    assert used == variables.keys()
    for variable in list(variables.values())[1:]:
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
        for metric, labels in asked(selector).matched.items():
            has = labels_of(metric)
            assert has is not None
            assert labels | {label} <= has | TARGET_LABELS


def test_what_the_platform_promises_is_shown():
    shown = {param.values[0]["title"] for param in PANELS}
    assert {
        "Data wait ratio", "Step time", "GPU use", "Object store in use", "Object store spilled", "Expert balance", "Validation scores"
    } <= shown  # fmt: skip


def test_every_metric_of_ours_is_shown_somewhere():
    shown = {metric for param in PANELS for target in param.values[0]["targets"] for metric in asked(target["expr"]).matched}
    assert {f"ray_{name}" for name in GAUGES} | {f"ray_{name}_total" for name in COUNTERS} <= shown
