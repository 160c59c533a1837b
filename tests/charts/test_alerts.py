"""The alert rules: they ask for what exists, tell what to do, and fire when they should and not before."""

import re
from pathlib import Path

import pytest
import yaml

from tests.charts.exported_metrics import OPTIONAL, TARGET_LABELS, labels_of
from tests.charts.promql import asked
from tests.charts.promtool import run_promtool

ALERTS = Path(__file__).resolve().parents[2] / "helm" / "echotrain" / "files" / "alerts.yaml"
RULES = [pytest.param(rule, id=rule["alert"]) for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]

RUN = 'namespace="lab",ray_io_cluster="c",run="knee"'
POD = 'namespace="lab",ray_io_cluster="c",pod="p"'
FAILED = "ray_echotrain_failed_runs_total"
DIED = "ray_node_manager_unexpected_worker_failure_total"
KILLED = "ray_memory_manager_worker_eviction_total"
JOB = 'namespace="lab",name="j"'
STORE, CAPACITY = "ray_object_store_memory", "ray_resources"
# Each alert: series by the minute (promtool's notation), a time when it is quiet, and one when it fires (None where it never does).
CASES = [
    ("EchotrainStarvedForData", {f"ray_echotrain_data_wait_ratio{{{RUN}}}": "0.5x60"}, "14m", "16m"),
    ("EchotrainStarvedForData", {f"ray_echotrain_data_wait_ratio{{{RUN}}}": "0.2x60"}, "60m", None),
    ("EchotrainStarvedForData", {f"ray_echotrain_data_wait_ratio{{{RUN}}}": "0.5x9 0.1x9 0.5x9"}, "28m", None),
    ("EchotrainStalled", {f"ray_echotrain_last_record_timestamp_seconds{{{RUN}}}": "600x90"}, "39m", "43m"),
    ("EchotrainStalled", {f"ray_echotrain_last_record_timestamp_seconds{{{RUN}}}": "600x20"}, "60m", None),
    ("EchotrainStalled", {f"ray_echotrain_last_record_timestamp_seconds{{{RUN}}}": "0+60x90"}, "90m", None),
    ("EchotrainLossNotFinite", {f'{FAILED}{{{RUN},error="NotFiniteError"}}': "_x5 1x60"}, "4m", "7m"),
    ("EchotrainLossNotFinite", {f'{FAILED}{{{RUN},error="NotFiniteError"}}': "1x30 2x60"}, "29m", "32m"),
    ("EchotrainLossNotFinite", {f'{FAILED}{{{RUN},error="NotFiniteError"}}': "_x5 1x60"}, "25m", None),
    ("EchotrainLossNotFinite", {f'{FAILED}{{{RUN},error="StorageError"}}': "_x5 1x60"}, "7m", None),
    ("EchotrainRunFailed", {f'{FAILED}{{{RUN},error="StorageError"}}': "_x5 1x60"}, "4m", "7m"),
    ("EchotrainRunFailed", {f'{FAILED}{{{RUN},error="NotFiniteError"}}': "_x5 1x60"}, "7m", None),
    ("EchotrainRestarting", {f"ray_echotrain_start_timestamp_seconds{{{RUN}}}": "1x9 2x9 3x9 4x20"}, "25m", "35m"),
    ("EchotrainRestarting", {f"ray_echotrain_start_timestamp_seconds{{{RUN}}}": "1x60"}, "60m", None),
    (
        "EchotrainGpuIdle",
        {
            f'ray_node_gpus_utilization{{{POD},GpuIndex="0"}}': "1x60",
            f'ray_node_gpus_utilization{{{POD},GpuIndex="1"}}': "2x60",
            f'{CAPACITY}{{{POD},Name="GPU",State="USED"}}': "2x60",
        },
        "29m",
        "31m",
    ),
    (
        "EchotrainGpuIdle",
        {f"ray_node_gpus_utilization{{{POD}}}": "1x60", f'{CAPACITY}{{{POD},Name="GPU",State="USED"}}': "0x60"},
        "60m",
        None,
    ),
    (
        "EchotrainGpuIdle",
        {f"ray_node_gpus_utilization{{{POD}}}": "80x60", f'{CAPACITY}{{{POD},Name="GPU",State="USED"}}': "1x60"},
        "60m",
        None,
    ),
    (
        "EchotrainObjectStoreNearlyFull",
        {
            f'{STORE}{{{POD},Location="MMAP_SHM",ObjectState="SEALED"}}': "90x60",
            f'{STORE}{{{POD},Location="MMAP_SHM",ObjectState="UNSEALED"}}': "5x60",
            f'{CAPACITY}{{{POD},Name="object_store_memory",State="USED"}}': "60x60",
            f'{CAPACITY}{{{POD},Name="object_store_memory",State="AVAILABLE"}}': "40x60",
        },
        "9m",
        "11m",
    ),
    (
        "EchotrainObjectStoreNearlyFull",
        {
            f'{STORE}{{{POD},Location="MMAP_SHM"}}': "50x60",
            f'{STORE}{{{POD},Location="SPILLED"}}': "500x60",
            f'{CAPACITY}{{{POD},Name="object_store_memory",State="AVAILABLE"}}': "100x60",
        },
        "60m",
        None,
    ),
    ("EchotrainObjectStoreSpilling", {f'{STORE}{{{POD},Location="SPILLED"}}': "2000000000x60"}, "9m", "11m"),
    ("EchotrainObjectStoreSpilling", {f'{STORE}{{{POD},Location="MMAP_SHM"}}': "2000000000x60"}, "60m", None),
    (
        "EchotrainHeadMemoryHigh",
        {f'ray_node_mem_used{{{POD},RayNodeType="head"}}': "95x60", f'ray_node_mem_total{{{POD},RayNodeType="head"}}': "100x60"},
        "9m",
        "11m",
    ),
    (
        "EchotrainHeadMemoryHigh",
        {f'ray_node_mem_used{{{POD},RayNodeType="worker"}}': "95x60", f'ray_node_mem_total{{{POD},RayNodeType="worker"}}': "100x60"},
        "60m",
        None,
    ),
    ("EchotrainWorkersKilledForMemory", {f'{KILLED}{{{POD},Name="f"}}': "_x5 1x60"}, "4m", "7m"),
    ("EchotrainWorkersFailing", {f'{DIED}{{{POD},Name="f"}}': "_x5 1x4 2x4 3x60"}, "14m", "17m"),
    ("EchotrainWorkersFailing", {f'{DIED}{{{POD},Name="f"}}': "_x5 1x4 2x4 3x60"}, "59m", None),
    ("EchotrainPodsPending", {'kube_pod_status_phase{namespace="lab",pod="c-h100-worker-x7",phase="Pending"}': "1x60"}, "19m", "21m"),
    ("EchotrainPodsPending", {'kube_pod_status_phase{namespace="lab",pod="other-7",phase="Pending"}': "1x60"}, "60m", None),
    (
        "EchotrainRayJobFailed",
        {f'kuberay_job_deployment_status{{{JOB},deployment_status="Failed"}}': "_x5 1x60"},
        "4m",
        "7m",
    ),
    (
        "EchotrainRayJobFailed",
        {f'kuberay_job_deployment_status{{{JOB},deployment_status="Complete"}}': "1x60"},
        "60m",
        None,
    ),
]


@pytest.mark.parametrize("rule", RULES)
def test_an_alert_asks_for_metrics_and_labels_that_exist(rule):
    matched, grouped = asked(rule["expr"])
    assert matched
    for metric, labels in matched.items():
        has = labels_of(metric)
        assert has is not None, f"nothing exports {metric}"
        assert labels | grouped <= has | TARGET_LABELS, f"{metric} has no {(labels | grouped) - has - TARGET_LABELS}"
        assert ("requires" in rule["annotations"]) == (metric in OPTIONAL), metric


@pytest.mark.parametrize("rule", RULES)
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(rule):
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Echotrain[A-Z]\w+", rule["alert"])
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    notes = rule["annotations"]
    assert notes.keys() - {"requires"} == {"summary", "description", "runbook"}
    assert len(notes["summary"]) < 120
    assert len(notes["description"]) > 100
    assert notes["runbook"] == "helm/echotrain/README.md#alerts"
    _, grouped = asked(rule["expr"])
    named = set(re.findall(r"\$labels\.(\w+)", notes["summary"] + notes["description"]))
    assert named
    assert named <= grouped, f"the text names {named - grouped}, which the result does not have"


def test_no_two_alerts_have_one_name_and_every_one_has_a_case_that_fires():
    names = [param.values[0]["alert"] for param in RULES]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, _, _, fires in CASES if fires}


def test_prometheus_takes_the_rules_and_fires_them_when_it_should(tmp_path):
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in inputs.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                    "eval_time": when,
                    "exp_samples": [{"labels": "{}", "value": fires}],
                }
                for when, fires in [(quiet, 0), *([(loud, 1)] if loud else [])]
            ],
        }
        for name, inputs, quiet, loud in CASES
    ]
    cases = tmp_path / "cases.yaml"
    cases.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    run_promtool("check", "rules", str(ALERTS))
    run_promtool("test", "rules", str(cases))
