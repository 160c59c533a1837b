"""The reading of expressions that the checks of dashboards and alerts rest on."""

import pytest

from tests.charts.exported_metrics import labels_of
from tests.charts.promql import asked


@pytest.mark.parametrize(
    ("expr", "matched", "grouped"),
    [
        ("up", {"up": set()}, set()),
        ("time() - max by (run) (a_seconds) > 1800", {"a_seconds": set()}, {"run"}),
        (
            'sum by (a, b) (rate(x_total{m="y{z}",n=~".+"}[5m])) / on(a) group_left(c) y',
            {"x_total": {"m", "n"}, "y": set()},
            {"a", "b", "c"},
        ),
        ("x - (x offset 15m or 0 * x)", {"x": set()}, set()),
        ('changes((max by (run) (x{a!="b"}))[1h:1m]) >= 2 unless y{c!~"d"}', {"x": {"a"}, "y": {"c"}}, {"run"}),
        ("1e9 * x{} and inf", {"x": set()}, set()),
    ],
)
def test_names_and_labels_are_found(expr, matched, grouped):
    assert asked(expr) == (matched, grouped)


@pytest.mark.parametrize("name", ["ray_node_gpus_used", "ray_echotrain_losses", "ray_resourceses", "autoscaler_nodes", "kube_pod_phase"])
def test_what_nothing_exports_is_not_found(name):
    assert labels_of(name) is None
