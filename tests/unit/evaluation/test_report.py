import base64
import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

from echotrain.errors import ObjectMissingError
from echotrain.evaluation.finding import find_results
from echotrain.evaluation.history import History
from echotrain.evaluation.report import render_csv, render_markdown, render_report
from echotrain.evaluation.results import MethodInfo
from echotrain.evaluation.stored import write_evaluation
from echotrain.storage.local import LocalStore
from ray_jobs import report as verb

VOID = {"meta", "img", "source", "br", "link"}
RECORDS = [
    {"kind": "train", "epoch": 0, "step": 2, "global_step": 2, "loss": 0.5, "data_wait_s": 0.1},
    {"kind": "epoch", "epoch": 0, "global_step": 2, "loss": 0.4, "ssim": 0.8123, "psnr": 30.0},
]


class Page(HTMLParser):
    """Reads a page, insisting that every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def run(name: str = "knee-x4") -> History:
    return History(name=name, train=(RECORDS[0],), epochs=(RECORDS[1],))


def write_run(folder, name: str):
    store = LocalStore(folder / name)
    store.write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in RECORDS).encode())
    return store


def test_the_page_shows_figures_tables_pictures_and_curves(evaluation):
    page = Page(render_report([evaluation], [run()], title="Knees and brains", generated="Made today."))
    for words in (
        "Knees and brains",
        "VarNet x4",
        "8 volumes, 80 slices",
        "33.38 dB",
        "Quality by group",
        "brain",
        "PD_FS",
        "Error × 5",
        "8 cascades",
    ):
        assert words in page.text
    for words in ("knee-x4: 2 steps, 1 epoch; best validation PSNR 30.00 dB, SSIM 0.8123 after epoch 1", "Made today.", "NMSE"):
        assert words in page.text
    images = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
    assert [image.split(";")[0] for image in images] == ["data:image/svg+xml", *["data:image/png"] * 8, "data:image/svg+xml"]
    assert all(value for tag, name, value in page.attributes if name == "alt")


def test_the_page_needs_nothing_from_elsewhere(evaluation):
    text = render_report([evaluation, evaluation], [run(), run("b")])
    page = Page(text)
    sources = [value for _, name, value in page.attributes if name in {"src", "srcset", "href", "data", "action"}]
    assert sources
    assert all(value.startswith("data:image/") for value in sources)
    assert not re.search(r"<script|<link|<iframe|@import|url\(|\son\w+=", text)
    for value in sources:
        assert base64.b64decode(value.partition("base64,")[2], validate=True)
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_whatever_a_header_says_stays_text(evaluation, volume_result):
    hostile = '<script>alert("x")</script>'
    info = dataclasses.replace(evaluation.info, name=hostile, note=hostile)
    methods = {**evaluation.methods, "model": MethodInfo(model=hostile, checkpoint=f"s3://{hostile}")}
    volumes = (volume_result(hostile, 30, anatomy=hostile, contrast='"><img src=x onerror=y>'),)
    text = render_report([dataclasses.replace(evaluation, info=info, methods=methods, volumes=volumes)], [run(hostile)], title=hostile)
    assert "<script" not in text
    assert "<img src=x" not in text
    assert Page(text).text.count(hostile) >= 5


def test_light_and_dark_pages_are_both_there(evaluation):
    text = render_report([evaluation])
    assert "prefers-color-scheme: dark" in text
    assert text.count('<source media="(prefers-color-scheme: dark)" srcset="data:image/svg+xml') == 1


def test_several_evaluations_are_put_side_by_side(evaluation):
    assert "Side by side" not in render_report([evaluation])
    methods = {**evaluation.methods, "model": dataclasses.replace(evaluation.methods["model"], checkpoint="s3://lab/other")}
    other = dataclasses.replace(evaluation, info=dataclasses.replace(evaluation.info, name="VarNet x8"), methods=methods)
    page = Page(render_report([evaluation, other]))
    assert "Side by side" in page.text
    assert page.text.index("VarNet x8") < page.text.index("Quality by group")


def test_a_model_worse_than_zero_filled_is_not_praised(evaluation, volume_result):
    text = render_report([dataclasses.replace(evaluation, volumes=(volume_result("a", 30, -3), volume_result("b", 31, -2)))])
    assert text.count('<span class="worse">') == 3
    assert '<span class="better">' not in text


def test_the_same_input_gives_the_same_page(evaluation):
    assert render_report([evaluation], [run()]) == render_report([evaluation], [run()])


def test_a_page_of_a_run_alone_has_its_curves():
    page = Page(render_report(runs=[History(name="young", train=(), epochs=())]))
    assert "young: 0 steps, 0 epochs" in page.text


def test_tables_come_as_markdown_and_csv_too(evaluation):
    assert render_markdown([evaluation]).startswith("## VarNet x4\n\n| Group | n |")
    assert render_csv([evaluation]).splitlines()[1].startswith("VarNet x4,all,All volumes,psnr,zero_filled,8,28.25,")


def test_a_run_is_found_with_the_evaluations_below_it(tmp_path, evaluation):
    write_run(tmp_path, "x4")
    write_evaluation(LocalStore(tmp_path / "x4/evaluation"), evaluation)
    write_evaluation(LocalStore(tmp_path / "x4/evaluation-brains"), evaluation)
    write_evaluation(LocalStore(tmp_path / "alone"), evaluation)
    evaluations, runs = find_results([str(tmp_path / "x4"), str(tmp_path / "alone")])
    assert (len(evaluations), [found.name for found in runs]) == (3, ["x4"])


def test_a_place_that_holds_nothing_is_named(tmp_path):
    with pytest.raises(ObjectMissingError, match=r"metrics\.jsonl nor summary\.json"):
        find_results([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "begins"), [("page.html", "<!doctype html>"), ("table.md", "## VarNet x4"), ("table.csv", "evaluation,kind")]
)
def test_the_verb_writes_the_form_that_the_name_asks_for(tmp_path, evaluation, capsys, name, begins):
    write_run(tmp_path, "x4")
    write_evaluation(LocalStore(tmp_path / "x4/evaluation"), evaluation)
    out = tmp_path / "deep" / name
    assert verb.main([str(tmp_path / "x4"), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_text(encoding="utf-8").startswith(begins)


def test_the_verb_writes_the_object_whose_key_was_given(tmp_path, evaluation, keyed_s3):
    write_evaluation(LocalStore(tmp_path / "x4"), evaluation)
    assert verb.main([str(tmp_path / "x4"), "--out", "s3://lab//pages//x4.md"]) == 0
    assert keyed_s3.keys("lab") == ["/pages//x4.md"]


def test_the_verb_writes_into_the_current_folder(tmp_path, monkeypatch):
    write_run(tmp_path, "x4")
    monkeypatch.chdir(tmp_path)
    assert verb.main(["x4"]) == 0
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"), [(["."], "holds neither"), ([".", "--out", "a.pdf"], "must end in"), (["ftp://x"], "neither a folder")]
)
def test_the_verb_explains_what_went_wrong_and_writes_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert verb.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
