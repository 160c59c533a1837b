"""The generated README of a chart: every value is in it, and it cannot fall behind values.yaml."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.k8s.scripts import ROOT, load_script

VALUES = """\
# A licence, which is no description.

# @section -- Image
image:
  # -- Where it is pulled from.
  repository: echotrain
  # Not this line,
  # -- but these two, with `a|b`
  # in them.
  # @default -- the chart's `appVersion`
  tag: ""
# -- Names of Secrets to pull with.
pullSecrets: []

# @section -- Workers
# -- Worker groups by name, as a whole.
groups:
  data: {cpus: 4, replicas: 1, tolerations: [], nodeSelector: {}, labels: {}}
# -- Probes, each by itself too.
probes:
  # -- Seconds before the first.
  delay: 1.5
  # -- Whether there are any.
  enabled: true
# -- Anything or nothing.
"a.b": null
"""
TEMPLATE = "# toy\n\n{{ values }}\n\nThe end.\n"
README = """\
# toy

### Image

| key | type | default | what it is |
|---|---|---|---|
| `image.repository` | string | `"echotrain"` | Where it is pulled from. |
| `image.tag` | string | the chart's `appVersion` | but these two, with `a\\|b` in them. |
| `pullSecrets` | list | `[]` | Names of Secrets to pull with. |

### Workers

| key | type | default | what it is |
|---|---|---|---|
| `groups` | object | see `values.yaml` | Worker groups by name, as a whole. |
| `probes` | object |  | Probes, each by itself too. |
| `probes.delay` | float | `1.5` | Seconds before the first. |
| `probes.enabled` | bool | `true` | Whether there are any. |
| `"a.b"` | any | `null` | Anything or nothing. |

The end.
"""

chart_readme = load_script("chart_readme")


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """Write a chart that has what the script reads."""
    (tmp_path / "values.yaml").write_text(VALUES)
    (tmp_path / "README.md.tmpl").write_text(TEMPLATE)
    return tmp_path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the script as make does."""
    command = [sys.executable, str(ROOT / ".ci" / "chart_readme"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_readme_has_every_value_with_its_default_and_description(chart: Path) -> None:
    assert chart_readme.render(chart) == README


def test_a_readme_that_is_written_passes_the_check_until_a_value_changes(chart: Path) -> None:
    assert run(chart, "--check").returncode == 1
    assert run(chart).returncode == 0
    assert (chart / "README.md").read_text() == README
    assert run(chart, "--check").returncode == 0
    (chart / "values.yaml").write_text(VALUES.replace("delay: 1.5", "delay: 2"))
    said = run(chart, "--check")
    assert said.returncode == 1
    assert ".ci/chart_readme" in said.stderr


@pytest.mark.parametrize("value", ["secret:\n  key: 1\n", "secret: 1\n", "# a comment that describes nothing\nsecret: []\n"])
def test_a_value_that_is_not_described_is_an_error(value: str, chart: Path) -> None:
    (chart / "values.yaml").write_text(VALUES + value)
    said = run(chart)
    assert said.returncode == 1
    assert "says nothing about secret" in said.stderr


def test_of_a_map_whose_parts_are_described_every_part_must_be(chart: Path) -> None:
    (chart / "values.yaml").write_text(VALUES.replace("  # -- Whether there are any.\n", ""))
    assert "says nothing about probes.enabled" in run(chart).stderr


def test_a_template_without_its_marker_is_an_error(chart: Path) -> None:
    (chart / "README.md.tmpl").write_text("# toy\n")
    assert "{{ values }} 0 times" in run(chart).stderr


def test_the_readme_of_each_chart_is_what_its_values_give() -> None:
    for template in sorted((ROOT / "helm").glob("*/README.md.tmpl")):
        assert run(template.parent, "--check").stderr == ""
