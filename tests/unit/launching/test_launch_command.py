import itertools
from pathlib import Path

import pytest

from echotrain.errors import EchotrainError
from ray_jobs import launch
from ray_jobs.launchable import ROOT, VERBS, Verb

CATALOG = "data.catalog=s3://lab/mosaic"


def flags_of(verb: Verb) -> set[str]:
    return {flag for action in verb.parser()._actions for flag in action.option_strings}


@pytest.mark.parametrize("verb", VERBS)
def test_no_option_of_the_launcher_is_one_of_a_verbs_or_the_beginning_of_one(verb):
    # A verb takes --over for --overwrite: an option of the launcher's must not be such a beginning either.
    pairs = itertools.product(launch.OPTIONS, flags_of(VERBS[verb]) - {"-h", "--help"})
    assert [(own, flag) for own, flag in pairs if flag.startswith(own)] == []


def test_no_verb_is_called_like_a_command_of_the_launchers():
    assert not set(VERBS) & set(launch.COMMANDS)


@pytest.mark.parametrize(
    ("words", "mine", "rest"),
    [
        ("train r workers=2 --queue q name=x", ["--queue", "q"], ["train", "r", "workers=2", "name=x"]),
        ("--namespace n train --detach r", ["--namespace", "n", "--detach"], ["train", "r"]),
        ("train --queue=q r", ["--queue=q"], ["train", "r"]),
        ("train r --que q --name n", [], ["train", "r", "--que", "q", "--name", "n"]),
        ("train r -- --queue q -- x", [], ["train", "r", "--", "--queue", "q", "--", "x"]),
        ("train r --queue", ["--queue", ""], ["train", "r"]),
        ("report a --title --dry", [], ["report", "a", "--title", "--dry"]),
    ],
)
def test_the_launchers_options_are_picked_out_and_the_verbs_stay_as_they_are_and_in_order(words, mine, rest):
    assert launch.split(words.split()) == (mine, rest)


@pytest.mark.parametrize(("text", "expected"), [("90m", 5400), ("12h", 43200), ("2d", 172800), ("30s", 30)])
def test_a_time_limit_is_said_in_its_unit(text, expected):
    assert launch.seconds(text) == expected


@pytest.mark.parametrize(
    ("words", "workers", "device", "places"),
    [
        (["train", "varnet_mosaic_x8", CATALOG, "workers=4"], 4, "gpu", {"data.catalog=": "s3://lab/mosaic", "storage=": "runs"}),
        (
            ["train", "varnet_mosaic_x8", CATALOG, "device=cpu", "storage=s3://a"],
            4,
            "cpu",
            {"data.catalog=": "s3://lab/mosaic", "storage=": "s3://a"},
        ),
        (
            ["train", "varnet_mosaic_x8", "data.catalog=s3://lab/mosaic #2", "storage=s3://12:30", "name=on"],
            4,
            "gpu",
            {"data.catalog=": "s3://lab/mosaic #2", "storage=": "s3://12:30"},
        ),
        (
            ["evaluate", "s3://lab/runs/x8", "data.catalog=s3://lab/b #1", "--to", "s3://c"],
            0,
            "gpu",
            {"data.catalog=": "s3://lab/b #1"},
        ),
        (["study", "mosaic", CATALOG, "workers=2", "--concurrency", "3", "storage=s3://a"], 6, "gpu", {}),
        (
            ["evaluate", "s3://lab/runs/x8", "data.catalog=s3://lab/b", "--to", "s3://c"],
            0,
            "gpu",
            {"RUN ": "s3://lab/runs/x8", "data.catalog=": "s3://lab/b", "--to ": "s3://c"},
        ),
        (
            ["evaluate", "espirit", CATALOG, "--to", "s3://c", "--workers", "9"],
            9,
            "cpu",
            {"data.catalog=": "s3://lab/mosaic", "--to ": "s3://c"},
        ),
        (
            ["evaluate", "s3://lab/knee.ckpt", CATALOG, "data.trusted=[s3://lab/raw]", "--to", "s3://c"],
            0,
            "gpu",
            {"RUN ": "s3://lab/knee.ckpt", "data.catalog=": "s3://lab/mosaic", "--to ": "s3://c"},
        ),
        (["reconstruct", "s3://lab/knee.pt", "s3://s", "--to", "s3://t"], 0, "gpu", {"RUN ": "s3://lab/knee.pt"}),
        (["prepare", "s3://raw", "--to", "s3://c"], 0, "cpu", {"SOURCE ": "s3://raw", "--to ": "s3://c"}),
        (["prepare", "s3://raw", "--to", "s3://c", "--key-file", "/shared/who.csv"], 0, "cpu", {"--key-file ": "/shared/who.csv"}),
        (
            ["prepare", "s3://raw", "--to", "s3://c", "--split-from", "patients=split.csv"],
            0,
            "cpu",
            {"SOURCE ": "s3://raw", "--to ": "s3://c", "--split-from patients=": "split.csv"},
        ),
        (
            ["report", "s3://a", "s3://b", "--out", "s3://c/r.html"],
            0,
            "none",
            {"URI 1 ": "s3://a", "URI 2 ": "s3://b", "--out ": "s3://c/r.html"},
        ),
        (["filter", "s3://c", "--name", "n", "--anatomies", "knee"], 0, "cpu", {"CATALOG ": "s3://c"}),
        (["reconstruct", "s3://r", "s3://s", "--to", "s3://t"], 0, "gpu", {"RUN ": "s3://r", "SOURCE ": "s3://s", "--to ": "s3://t"}),
        (["train", "lbm_mosaic_x4", CATALOG, "model.autoencoder=s3://w/vae"], 4, "gpu", {"model.autoencoder=": "s3://w/vae"}),
    ],
)
def test_a_command_line_says_what_it_computes_with_and_what_it_reads_and_writes(words, workers, device, places):
    verb, *arguments = words
    asked = VERBS[verb].ask(arguments)
    assert asked.arguments == arguments
    assert (asked.need.workers, asked.need.device) == (workers, device)
    assert places.items() <= asked.places.items()


def test_weights_to_be_evaluated_on_a_cluster_need_a_place_for_the_result():
    with pytest.raises(EchotrainError, match=r"s3://lab/knee\.pt without --to: is a file"):
        VERBS["evaluate"].ask(["s3://lab/knee.pt", CATALOG])


def test_a_sweep_is_named_as_the_image_has_it_from_wherever_it_is_launched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = ROOT / "sweeps" / "mosaic_scaling.yaml"
    asked = VERBS["sweep"].ask([str(file), CATALOG, "workers=2", "--concurrency", "2"])
    assert asked.arguments == ["sweeps/mosaic_scaling.yaml", CATALOG, "workers=2", "--concurrency", "2"]
    assert asked.need.workers == 4
    assert not asked.lacks_storage  # the file has one
    assert VERBS["train"].ask(["varnet_mosaic_x8", CATALOG]).lacks_storage


def test_a_sweep_of_this_machine_alone_is_refused_with_where_to_put_it(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_bytes((ROOT / "sweeps" / "mosaic_scaling.yaml").read_bytes())
    with pytest.raises(EchotrainError, match=r"mine\.yaml: is not in sweeps/.*so the image does not have it"):
        VERBS["sweep"].ask([str(mine)])


def test_a_sweep_that_differs_from_what_is_committed_is_noted(monkeypatch):
    monkeypatch.setattr("ray_jobs.launchable._is_changed", lambda file: True)
    (note,) = VERBS["sweep"].ask([str(ROOT / "sweeps" / "mask.yaml"), CATALOG]).notes
    assert "sweeps/mask.yaml differs" in note


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "varnet_mosaic_x9"], "Did you mean 'varnet_mosaic_x8'"),
        (["train", "varnet_mosaic_x8", "optim.learning_rate=1"], "Did you mean 'optim.lr'"),
        (["train", "varnet_mosaic_x8", "workers=8"], "batch_size=4"),
        (["train", "--list"], "Run python -m ray_jobs.train here"),
        (["train", "varnet_mosaic_x8", "--show"], "Run python -m ray_jobs.train here"),
        (["study", "mosaik"], "Did you mean 'mosaic'"),
        (["evaluate", "s3://r", "data.catalogue=s3://x"], "Did you mean 'data.catalog'"),
        (["evaluate", "s3://r", "data.mask"], "is not of the form"),
        (["evaluate", "espirit", CATALOG], "Give --to URI"),
        (["evaluate", "espirit", "optim.lr=1", "--to", "s3://c"], "unknown key 'optim.lr'"),
        (["report", "s3://r", "--out", "s3://c/r.pdf"], "must end in one of"),
        (["filter", "s3://c", "--name", "n", "--embedder", "dinosim"], "embedder 'dinosim': is unknown"),
        (["filter", "s3://c", "--name", "n", "--query-split", "test"], "judged on"),
        (["prepare", "s3://raw", "--to", "s3://c", "--split", "1/2"], "must be three shares"),
        (["prepare", "s3://raw", "--to", "s3://c", "--safe-names", "("], "is no regular expression"),
        (["reconstruct", "s3://r", "s3://s", "--to", "s3://t", "--safe-names", "("], "is no regular expression"),
        (["reconstruct", "s3://r", "s3://s", "--to", "s3://t", "--workers", "-1"], "must be at least 0"),
        (["sweep", "sweeps/none.yaml"], "none.yaml"),
        (["bench", "step"], "is no verb that can be launched"),
    ],
)
def test_what_is_wrong_is_said_before_a_cluster_is_asked(words, message, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    assert launch.main(words) == 2
    assert message in capsys.readouterr().err


def test_a_missing_kubeconfig_is_named_with_what_to_do(monkeypatch, capsys):
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    assert launch.main(["list"]) == 2
    assert "Let KUBECONFIG name one" in capsys.readouterr().err


def test_a_secret_key_of_this_machine_is_said_not_to_reach_the_pods(monkeypatch):
    monkeypatch.setenv("ECHOTRAIN_DEID_SALT", "pepper")
    (note,) = VERBS["prepare"].ask(["s3://raw", "--to", "s3://c"]).notes
    assert "not passed on" in note
    assert "pepper" not in note


@pytest.mark.parametrize("words", [["--help"], [], ["train", "--help"]])
def test_help_shows_the_options_and_examples(words, capsys):
    assert launch.main(words) == 0
    out = capsys.readouterr().out
    assert "--time-limit TIME" in out
    assert "python -m ray_jobs.launch sweep sweeps/mosaic_scaling.yaml" in out


def test_every_verb_that_computes_can_be_launched():
    here = {path.stem for path in (ROOT / "ray_jobs").glob("*.py")}
    elsewhere = {"__init__", "launch", "launchable", "bench", "demo", "export", "gpu_check", "submit", "workspace"}  # of this machine
    assert here - elsewhere == set(VERBS)
    assert Path(launch.__file__).parent == ROOT / "ray_jobs"
