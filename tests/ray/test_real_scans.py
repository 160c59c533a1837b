"""The main path on real scanner files of every format: prepared into S3, evaluated at 4x, reconstructed. Skips where they are absent."""

import re
import shutil

import h5py
import numpy as np
import pytest

from echotrain.data.catalog.store import load_catalog
from echotrain.evaluation.comparison import compare
from echotrain.evaluation.report import render_report
from echotrain.evaluation.stored import read_evaluation
from echotrain.models.unrolled.varnet import VarNetConfig
from echotrain.orchestration.jobs.espirit import EspiritMethod
from echotrain.orchestration.jobs.evaluate import evaluate as evaluate_method
from echotrain.orchestration.jobs.inference import InferenceConfig
from echotrain.storage.embedded import serve_folder
from echotrain.storage.open import open_store
from ray_jobs import evaluate, prepare, reconstruct, report
from tests.runs import write_run

pytestmark = pytest.mark.ray

# Named after what they are of, by those who published them.
SAFE = ["--safe-names", r"(brain|phantom|skyra|trio|pulseq)_\w+"]
MASK = ["data.mask.kind=equispaced_fraction", "data.mask.accelerations=[4]", "data.mask.center_fractions=[0.08]"]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory, scanner_data):
    """Return an S3 bucket with a run whose only checkpoint is a network as it was initialised."""
    with serve_folder(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env.items():
            patch.setenv(name, value)
        uri = server.create_bucket("real")
        model = VarNetConfig(num_cascades=1, chans=4, pools=2, sens_chans=2, sens_pools=2)
        write_run(f"{uri}/untrained", model, catalog=f"{uri}/prepared")
        yield uri


def test_every_format_is_prepared_and_a_scan_in_two_formats_is_seen_to_be_one(local_ray, bucket, scanner_data):
    pytest.importorskip("twixtools")
    assert prepare.main([str(scanner_data), "--to", f"{bucket}/prepared", *SAFE]) == 0
    catalog = load_catalog(f"{bucket}/prepared")
    volumes = {row.volume: row for row in catalog.rows()}
    assert set(volumes) == {
        "brain_flash_16ch_cimax3T",
        "brain_t2_4ch",
        "phantom_gre_4ch_trio3T",
        "pulseq_gre_64x64_32ch",
        "skyra_VE11_gre_phantom_2ch",
    }
    assert volumes["brain_t2_4ch"].anatomy == "brain"
    pulseq = volumes["pulseq_gre_64x64_32ch"]
    assert (pulseq.coils, pulseq.height, pulseq.width, pulseq.recon_height, pulseq.recon_width) == (32, 64, 64, 64, 64)
    # The ISMRMRD file and one twix file hold scans that are there as fastMRI files too; one scan is echo-planar.
    reasons = sorted(entry["reason"] for entry in catalog.manifest["left_out"])
    assert reasons[:2] == [f"duplicate of {name}: the same k-space" for name in ("brain_flash_16ch_cimax3T", "phantom_gre_4ch_trio3T")]
    assert reasons[2:] == [
        "every second line runs backwards: read as lines it is a ghost: an echo-planar scan, or one whose readouts should be turned over"
    ]
    findings = {scan["volume"]: scan["findings"] for scan in catalog.manifest["scans"]}
    (told,) = findings.pop("pulseq_gre_64x64_32ch")
    assert "line 0 of 128: line 32 of 64 is taken" in told
    assert not any(findings.values()), findings


def test_real_scans_are_evaluated_and_reported(local_ray, bucket, scanner_data, tmp_path):
    if open_store(f"{bucket}/prepared").size("catalog/v000001.json") is None:
        assert prepare.main([str(scanner_data), "--to", f"{bucket}/prepared", *SAFE]) == 0
    assert evaluate.main([f"{bucket}/untrained", "--split", "all", *MASK, "--note", "an untrained network"]) == 0
    volumes = {volume.volume: volume for volume in read_evaluation(open_store(f"{bucket}/untrained/evaluation")).volumes}
    # Undersampled fourfold, real anatomy stays recognisable and is far from right.
    assert 15 < volumes["brain_t2_4ch"].scores["zero_filled"]["psnr"] < 35
    assert 15 < volumes["brain_flash_16ch_cimax3T"].scores["zero_filled"]["psnr"] < 35
    assert report.main([f"{bucket}/untrained", "--out", str(tmp_path / "real.html")]) == 0
    assert "brain_t2_4ch" in (tmp_path / "real.html").read_text()


def test_a_real_scan_is_reconstructed(local_ray, bucket, scanner_data, tmp_path):
    source = str(scanner_data / "brain_t2_4ch.h5")
    assert reconstruct.main([f"{bucket}/untrained", source, "--to", str(tmp_path), "--undersample", *SAFE, *MASK]) == 0
    with h5py.File(tmp_path / "brain_t2_4ch.h5") as file:
        assert file["reconstruction"].shape == (1, 256, 256)
        assert np.isfinite(file["reconstruction"][:]).all()


@pytest.fixture(scope="module")
def methods_at_3_and_4(whole, bucket, scanner_data, tmp_path_factory):
    """Return evaluations on the scans that are there in fastMRI's layout, equispaced lines with 8% in the centre: a network, then ESPIRiT.

    The network has seen ten steps of simulated slices; ESPIRiT stops at 60 of its 200 iterations, which
    costs it 0.4 dB at R = 3 and 0.6 dB at R = 4.
    """
    folder = tmp_path_factory.mktemp("scans")
    for scan in scanner_data.glob("*.h5"):
        shutil.copy(scan, folder)
    assert prepare.main([str(folder), "--to", f"{bucket}/fastmri", *SAFE]) == 0
    evaluations = []
    for acceleration in (3, 4):
        settings = (*MASK, f"data.catalog={bucket}/fastmri", f"data.mask.accelerations=[{acceleration}]")
        for method in (
            InferenceConfig(run=whole.run_uri, overrides=settings, workers=1),
            EspiritMethod(overrides=(*settings, "espirit.iterations=60"), workers=2),
        ):
            evaluations.append(evaluate_method(method, split="all", num_examples=3))
    return evaluations


@pytest.mark.bart
@pytest.mark.slow
def test_espirit_zero_filled_and_a_trained_network_stand_in_one_table_with_their_pictures(methods_at_3_and_4):
    evaluations = methods_at_3_and_4
    network, espirit = (each.methods["model"].model for each in evaluations[:2])
    assert network.startswith("E2E-VarNet")
    comparison = compare(evaluations)
    (section,) = comparison.quality.sections
    assert [row[0] for row in section.rows] == ["Zero-filled", network, espirit]
    assert all(cell for row in section.rows for cell in row)
    assert [column for column in comparison.quality.columns if "PSNR" in column] == ["PSNR (dB)\nR = 3, n = 3", "PSNR (dB)\nR = 4, n = 3"]

    shown = {(shared.volume, shared.attributes.acceleration): shared for shared in comparison.examples}
    volumes = {volume.volume for volume in evaluations[0].volumes}
    assert volumes == {"brain_flash_16ch_cimax3T", "brain_t2_4ch", "phantom_gre_4ch_trio3T"}
    assert set(shown) == {(volume, acceleration) for volume in volumes for acceleration in (3, 4)}
    for shared in comparison.examples:
        assert list(shared.images) == ["Zero-filled", network, espirit]
        assert {image.shape for image in shared.images.values()} == {shared.target.shape}
    page = render_report(evaluations)
    (side_by_side,) = re.findall(r'<section id="comparison">.*?</section>', page, re.DOTALL)
    # Of three methods the image and its error, the target and the masked k-space, for every volume at either acceleration.
    assert side_by_side.count("<img") == 8 * 6


@pytest.mark.bart
@pytest.mark.slow
def test_espirit_recovers_what_undersampling_lost_of_real_scans(methods_at_3_and_4):
    means = []
    for network, espirit in zip(methods_at_3_and_4[::2], methods_at_3_and_4[1::2], strict=True):
        for mine, theirs in zip(network.volumes, espirit.volumes, strict=True):
            assert mine.scores["zero_filled"] == theirs.scores["zero_filled"]
            assert theirs.scores["model"]["nmse"] < theirs.scores["zero_filled"]["nmse"]
        means.append([np.mean([v.scores[kind]["psnr"] for v in e.volumes]) for e, kind in ((espirit, "zero_filled"), (espirit, "model"))])
        # Brief training does not mend aliasing, and must not lose the image: a wrong scale or shift costs more than this.
        assert np.mean([v.scores["model"]["psnr"] for v in network.volumes]) > 20
    (zero_3, espirit_3), (zero_4, espirit_4) = means
    # Masks depend on the volume alone, so zero-filled images are the same everywhere.
    assert (zero_3, zero_4) == pytest.approx((25.197, 24.425), abs=0.01)
    assert espirit_3 > zero_3 + 3
    assert espirit_4 > zero_4 + 3
    assert espirit_3 > espirit_4
