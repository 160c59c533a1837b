"""The image, as far as it can be known unbuilt: its file's rules, its checks run by sh, its packages held against the lock."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "k8s/images/Dockerfile"
DIGEST = "sha256:" + "0a" * 32
EXTRAS = ("formats", "lbm", "s3")


@dataclass(frozen=True, kw_only=True)
class Stage:
    base: str
    name: str
    steps: tuple[tuple[str, str], ...]

    def of(self, keyword):
        return [words for step, words in self.steps if step == keyword]


def read_steps():
    """Return (keyword, rest) of each instruction, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def stages():
    found = []
    for keyword, rest in read_steps():
        if keyword == "FROM":
            base, as_, name = rest.split()
            assert as_ == "AS"
            found.append((base, name, []))
        elif found:
            found[-1][2].append((keyword, rest))
    return [Stage(base=base, name=name, steps=tuple(steps)) for base, name, steps in found]


def shell(step, **arguments):
    """Run a RUN step's command, without its mounts, as the builder would with these arguments."""
    command = re.sub(r"^(--mount=\S+\s*)+", "", step)
    return subprocess.run(["sh", "-c", command], env={"PATH": "/usr/bin:/bin", **arguments}, capture_output=True, text=True, check=False)


def step_with(stages, words):
    (step,) = [step for stage in stages for step in stage.of("RUN") if words in step]
    return step


def test_every_stage_stands_on_the_base_that_the_builder_pins(stages):
    names = {stage.name for stage in stages}
    assert {stage.base for stage in stages} - names == {"${BASE_IMAGE}"}
    assert ("ARG", "BASE_IMAGE") in read_steps()[:1]
    assert "BASE_IMAGE=" not in " ".join(words for keyword, words in read_steps() if keyword == "ARG")
    first = stages[0]
    assert first.steps[:2] == (("ARG", "BASE_IMAGE"), ("RUN", step_with(stages, "is not pinned")))


@pytest.mark.parametrize(
    ("image", "is_pinned"),
    [
        (f"python:3.12-slim@{DIGEST}", True),
        (f"registry.example:5000/mirror/python@{DIGEST}", True),
        ("python:3.12-slim", False),
        ("python:3.12-slim@sha256:0a0a", False),
        (f"python:3.12-slim@{DIGEST}0", False),
        ("", False),
    ],
)
def test_a_base_without_a_digest_fails_the_build_and_says_what_to_give(stages, image, is_pinned):
    done = shell(step_with(stages, "is not pinned"), BASE_IMAGE=image)
    assert done.returncode == (0 if is_pinned else 1)
    assert is_pinned or f"BASE_IMAGE={image} is not pinned: give NAME:TAG@sha256:DIGEST" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"VARIANT": "cpu", "TORCH_INDEX_URL": "https://wheels.example/cpu"}, ""),
        ({"VARIANT": "cuda"}, ""),
        ({"VARIANT": "cpu"}, "VARIANT=cpu without TORCH_INDEX_URL"),
        ({"VARIANT": "rocm"}, "VARIANT=rocm is not known: give cpu or cuda"),
        ({}, "VARIANT= is not known"),
    ],
)
def test_a_variant_that_would_bring_the_wrong_torch_is_refused(stages, arguments, message):
    done = shell(step_with(stages, "is not known"), **arguments)
    assert (done.returncode == 0) == (not message)
    assert message in done.stderr


@pytest.mark.parametrize(
    ("packages", "variant", "passes"),
    [
        ("torch 2.13.0+cpu", "cpu", True),
        ("torch 2.13.0\\nnvidia-cublas 13.1", "cpu", False),
        ("torch 2.13.0\\nnvidia-cublas 13.1", "cuda", True),
    ],
)
def test_cuda_in_an_image_for_cpus_fails_the_build(stages, packages, variant, passes):
    step = step_with(stages, "pip list").replace("pip list", f"printf '{packages}\\n'")
    done = shell(step, VARIANT=variant)
    assert (done.returncode == 0) == passes


def test_every_installation_is_held_to_the_lock_of_ci(stages):
    installations = [step for stage in stages for step in stage.of("RUN") if re.search(r"pip (install|wheel|download)", step)]
    assert len(installations) == 4
    for step in installations:
        assert re.search(r"--constraint \S*constraints\.txt", step), step
    assert "pyproject.toml .ci/constraints.txt ./" in [words for stage in stages for words in stage.of("COPY")]


def test_torch_is_chosen_first_and_replaced_by_nothing(stages):
    (dependencies,) = (stage for stage in stages if stage.name == "dependencies")
    installed = [step for step in dependencies.of("RUN") if "pip install" in step]
    assert installed[0].endswith("torch")
    assert "--no-deps" in installed[0]
    assert "--upgrade" not in installed[1]


def test_the_requirements_are_those_of_the_project_and_of_what_pods_need(stages):
    step = step_with(stages, "tomllib").replace("python3", sys.executable).replace("> requirements.txt", "")
    done = subprocess.run(["sh", "-c", step], cwd=ROOT, capture_output=True, text=True, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    assert done.stdout.splitlines() == expected


def test_what_the_requirements_bring_along_is_in_the_lock():
    """Walks what is installed here, which the lock was written from; what CUDA adds, torch itself names by exact versions."""
    lock = {canonicalize_name(name): version for name, _, version in (line.strip().partition("==") for line in _lock())}
    reached, waiting = set(), [("echotrain", EXTRAS)]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in reached:
            continue
        reached.add((name, extras))
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            environments = [{"extra": extra} for extra in ("", *extras)]
            if needed.marker is None or any(needed.marker.evaluate(each) for each in environments):
                waiting.append((canonicalize_name(needed.name), tuple(sorted(needed.extras))))
    # pip freeze, which writes the lock, leaves setuptools out.
    names = {name for name, _ in reached} - {"echotrain", "setuptools"}
    names = {name for name in names if not name.startswith(("nvidia-", "triton", "cuda-"))}
    assert len(names) > 100
    assert names <= set(lock), f"not in .ci/constraints.txt: {sorted(names - set(lock))}"


def _lock():
    return (ROOT / ".ci/constraints.txt").read_text().splitlines()


def test_the_image_runs_as_nobody_in_particular_from_where_the_verbs_are(stages):
    image = stages[-1]
    assert image.of("USER") == ["1000:1000"]
    assert image.of("WORKDIR") == ["/app"]
    assert image.of("HEALTHCHECK") == ["NONE"]
    keywords = [keyword for keyword, _ in image.steps]
    assert "RUN" not in keywords[keywords.index("USER") :]
    # KubeRay's probes before Ray 2.53 call wget; its commands are for bash, which Debian has.
    assert re.search(r"apt-get install .*\bwget\b", step_with(stages, "apt-get"))
    copied = {words.split()[-1] for words in image.of("COPY")}
    assert {"ray_jobs", "sweeps"} <= copied


def test_only_named_sources_are_copied_and_all_of_them_exist(stages):
    for stage in stages:
        for words in stage.of("COPY"):
            *sources, _ = words.split()
            if sources[0].startswith("--from="):
                assert sources[0].removeprefix("--from=") in {each.name for each in stages}
                continue
            for source in sources:
                assert (ROOT / source).exists(), source
                assert not re.match(r"\.$|\./?$|\.git|\.venv|build|tests|helm|k8s", source), source


def test_the_build_sees_what_is_copied_and_nothing_else(stages):
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    admitted = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {source for stage in stages for words in stage.of("COPY") if not words.startswith("--from=") for source in words.split()[:-1]}
    assert admitted == copied


def test_nothing_secret_is_an_argument_or_a_variable(stages):
    steps = [words for keyword, words in read_steps() if keyword in ("ARG", "ENV", "LABEL")]
    assert not re.search(r"(?i)password|passwd|secret|token|credential|api_?key", " ".join(steps))


def test_no_registry_and_no_index_is_named():
    assert not re.search(r"https?://|\.io/|\.com/|\.org/", DOCKERFILE.read_text())


def test_a_container_sees_no_gpu_that_it_was_not_given(stages):
    assert not any("NVIDIA_VISIBLE_DEVICES" in words for stage in stages for words in stage.of("ENV"))
