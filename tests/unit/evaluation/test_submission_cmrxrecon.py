import h5py
import numpy as np
import pytest
from scipy.io import loadmat, savemat, whosmat
from submissions import CASE, magnitudes, problems_of, unzip, write_kus

from echotrain.data.formats.write import write_fastmri
from echotrain.errors import ConfigError, ScanError, SubmissionError
from echotrain.evaluation.submission import CmrxreconChallenge, check_submission, ranking_crop, write_submission

CMR = CmrxreconChallenge()
CINE = "cine_sax_kus_Uniform8.mat"


def coordinates(shape: tuple[int, int, int, int]) -> np.ndarray:
    """Return (frames, slices, readout, phase) images whose value is their place, written in decimals: frame, slice, row, column."""
    frames, slices, rows, columns = np.indices(shape)
    return 1_000_000 * frames + 10_000 * slices + 100 * rows + columns


# Rows and columns by hand from run4Ranking_2025 and crop.m, counted from 0: round(sx / 3) rows, of which the first is
# floor(sx / 2) - floor(n / 2). 2.5 and 4.5 columns become 3 and 5; Python's own round() would make 2 and 4 of them.
@pytest.mark.parametrize(
    ("readout", "rows"),
    [(7, [2, 3]), (8, [3, 4, 5]), (4, [2]), (5, [1, 2]), (9, [3, 4, 5]), (10, [4, 5, 6]), (11, [3, 4, 5, 6]), (2, [1])],
)
@pytest.mark.parametrize(
    ("phase", "columns"), [(5, [1, 2, 3]), (6, [2, 3, 4]), (7, [1, 2, 3, 4]), (8, [2, 3, 4, 5]), (9, [2, 3, 4, 5, 6]), (1, [0])]
)
def test_the_ranked_rows_and_columns_are_those_of_the_organisers_function(readout, rows, phase, columns):
    ranked = ranking_crop(coordinates((1, 1, readout, phase)), "cine_sax.mat")
    np.testing.assert_array_equal(ranked, [[100 * row + column for column in columns] for row in rows])
    assert ranked.dtype == np.float32


# (center - 1):center of MATLAB with center = round(sz / 2), counted from 0.
@pytest.mark.parametrize(
    ("slices", "ranked"), [(1, [0]), (2, [0, 1]), (3, [0, 1]), (4, [0, 1]), (5, [1, 2]), (6, [1, 2]), (7, [2, 3]), (9, [3, 4])]
)
def test_the_ranked_slices_are_the_two_that_matlabs_rounding_finds(slices, ranked):
    part = ranking_crop(coordinates((4, slices, 3, 2)), "cine_sax.mat").reshape(-1, len(ranked), 3)
    assert (part[0, :, 0] // 10_000).tolist() == ranked


@pytest.mark.parametrize(
    ("name", "frames", "ranked"),
    [
        ("cine_lax_kus_Uniform8.mat", 12, 3),
        ("cine_lax_kus_Uniform8.mat", 2, 2),
        ("perfusion_kus_ktRadial24.mat", 40, 3),
        ("T1map_kus_Uniform8.mat", 9, 9),
        ("T2smap_kus_Uniform8.mat", 4, 4),
        ("T1mappost_kus_Uniform8.mat", 8, 8),
        ("T1rho_kus_Uniform8.mat", 5, 5),
        ("blackblood_kus_Uniform8.mat", 1, 1),
        ("T1w_kus_Uniform8.mat", 1, 1),
        ("T2w_kus_ktGaussian16.mat", 6, 1),
    ],
)
def test_mapping_series_keep_all_frames_and_others_at_most_three(name, frames, ranked):
    part = ranking_crop(coordinates((frames, 4, 9, 8)), name)
    assert part.shape == ((3, 4, 2, ranked) if ranked > 1 else (3, 4, 2))
    assert part.reshape(3, 4, 2, -1)[0, 0, 0].tolist() == pytest.approx([1_000_000 * t + 302 for t in range(ranked)])


def test_complex_images_are_ranked_by_their_magnitude():
    images = coordinates((3, 2, 9, 8)) * np.exp(0.7j)
    np.testing.assert_allclose(ranking_crop(images, "cine.mat"), ranking_crop(coordinates((3, 2, 9, 8)), "cine.mat"), rtol=1e-6)


def test_an_image_too_small_for_the_crop_is_refused():
    with pytest.raises(ScanError, match="too small for the ranking crop"):
        ranking_crop(np.ones((1, 1, 1, 8)), "cine.mat")


@pytest.fixture
def like(tmp_path):
    """Return a validation set: MATLAB's (readout, phase, coils, slices[, frames]), with the masks that lie beside it."""
    root = tmp_path / "like" / "MultiCoil"
    write_kus(root / CASE / CINE, (31, 18, 2, 5, 6))
    write_kus(root / CASE.replace("Cine", "BlackBlood") / "blackblood_kus_Uniform8.mat", (30, 17, 2, 3))
    write_kus(root / CASE.replace("Cine", "Mapping") / "T1map_kus_ktRadial16.mat", (30, 16, 2, 1, 9))
    write_kus(root / CASE.replace("UnderSample", "Mask") / "cine_sax_mask_Uniform8.mat", (31, 18, 6))
    write_kus(root / CASE / "sensitivities.mat", (31, 18, 2, 5))
    (root / "info.csv").write_text("Center001")
    return tmp_path / "like"


@pytest.fixture
def images(like, tmp_path) -> dict[str, np.ndarray]:
    """Return the reconstructions that lie in ``images``: (frames, slices, readout, phase), of HDF5 and of numpy."""
    root, found = tmp_path / "images" / "MultiCoil", {}
    for seed, (path, shape) in enumerate(
        {
            f"{CASE}/cine_sax_kus_Uniform8.h5": (6, 5, 31, 18),
            f"{CASE.replace('Cine', 'BlackBlood')}/blackblood_kus_Uniform8.npy": (3, 30, 17),
            f"{CASE.replace('Cine', 'Mapping')}/T1map_kus_ktRadial16.npy": (9, 1, 30, 16),
        }.items()
    ):
        array = found[path] = magnitudes(shape, seed)
        if path.endswith(".h5"):
            write_fastmri(root / path, header=b"<x/>", reconstruction=array)
        else:
            (root / path).parent.mkdir(parents=True)
            np.save(root / path, array)
    return found


@pytest.fixture
def submitted(like, images, tmp_path):
    write_submission(CMR, str(tmp_path / "images"), str(like), tmp_path / "Submission")
    return tmp_path / "Submission"


def test_a_submission_lies_where_the_scorer_looks_and_matlab_sees_readout_first(submitted, images):
    root = "TaskR1/MultiCoil"
    assert sorted(path.relative_to(submitted).as_posix() for path in submitted.rglob("*.mat")) == [
        f"{root}/BlackBlood/ValidationSet/UnderSample_TaskR1/Center001/UIH_30T_umr880/P001/blackblood_kus_Uniform8.mat",
        f"{root}/Cine/ValidationSet/UnderSample_TaskR1/Center001/UIH_30T_umr880/P001/cine_sax_kus_Uniform8.mat",
        f"{root}/Mapping/ValidationSet/UnderSample_TaskR1/Center001/UIH_30T_umr880/P001/T1map_kus_ktRadial16.mat",
    ]
    # whosmat reports what MATLAB's whos would: one variable, its size, its class.
    cine = submitted / root / CASE / CINE
    assert whosmat(cine) == [("img4ranking", (10, 9, 2, 3), "single")]
    stored = loadmat(cine)["img4ranking"]
    full = images[f"{CASE}/cine_sax_kus_Uniform8.h5"]
    # 31 readouts: 10 rows from 15 - 5; 18 lines: 9 columns from 9 - 4; 5 slices: numbers 1 and 2.
    for x, y, z, t in ((0, 0, 0, 0), (9, 8, 1, 2), (3, 5, 1, 0), (4, 0, 0, 2)):
        assert stored[x, y, z, t] == full[t, 1 + z, 10 + x, 5 + y]
    assert whosmat(next(submitted.rglob("blackblood*"))) == [("img4ranking", (10, 9, 2), "single")]
    assert whosmat(next(submitted.rglob("T1map*"))) == [("img4ranking", (10, 8, 1, 9), "single")]


@pytest.mark.parametrize("name", ["again", "Submission.zip"])
def test_what_was_written_passes_the_check_as_folder_and_zip(name, like, images, tmp_path):
    done = write_submission(CMR, str(tmp_path / "images"), str(like), tmp_path / name)
    assert check_submission(CMR, tmp_path / name, str(like)).num_files == done.num_files == 3
    if name.endswith(".zip"):
        assert (unzip(tmp_path / name, tmp_path / "u") / "Submission" / "TaskR1" / "MultiCoil" / CASE / CINE).is_file()


def test_the_test_set_may_be_given_from_any_folder_of_its_layout(submitted, like, tmp_path):
    only = like / "MultiCoil" / "Cine"
    lines = problems_of(CMR, submitted, only)
    assert all("is not of the test set" in line for line in lines)
    assert len(lines) == 2


def stored(path, images, **others):
    savemat(path, {"img4ranking": images, **others})


GOOD = magnitudes((10, 9, 2, 3))


@pytest.mark.parametrize(
    ("spoil", "fragment"),
    [
        (lambda path: stored(path, GOOD, x=np.ones(2)), "has 'x' too; expected: exactly the key img4ranking"),
        (lambda path: savemat(path, {"img": GOOD}), "has 'img' too"),
        (lambda path: stored(path, GOOD.astype(float)), "img4ranking is double; expected: real single"),
        (lambda path: stored(path, GOOD.astype(np.complex64)), "img4ranking is complex single; expected: real single"),
        (lambda path: stored(path, GOOD.swapaxes(0, 1)), "img4ranking has shape (9, 10, 2, 3); expected: (10, 9, 2, 3)"),
        (lambda path: stored(path, GOOD[..., :2]), "img4ranking has shape (10, 9, 2, 2)"),
        (lambda path: stored(path, GOOD[..., None]), "img4ranking has shape (10, 9, 2, 3, 1)"),
        (lambda path: stored(path, np.where(GOOD > 1, np.nan, GOOD)), "img4ranking is not finite"),
        (lambda path: stored(path, np.array([1, "a"], dtype=object)), "img4ranking is cell"),
        (lambda path: path.write_bytes(b"hello"), "no MATLAB file; expected: must be one of version 5"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "an element of type 15"),
    ],
)
def test_every_broken_rule_is_named_with_its_file(spoil, fragment, submitted, like):
    path = submitted / "TaskR1" / "MultiCoil" / CASE / CINE
    spoil(path)
    lines = problems_of(CMR, submitted, like)
    assert any(f"{path.relative_to(submitted).as_posix()}: {fragment}" in line for line in lines)
    assert all(CINE in line for line in lines)


def test_a_file_of_version_7_3_which_the_scorer_reads_with_its_axes_reversed_is_refused(submitted, like):
    path = submitted / "TaskR1" / "MultiCoil" / CASE / CINE
    path.unlink()
    with h5py.File(path, "w", userblock_size=512) as file:
        file["img4ranking"] = GOOD
    data = bytearray(path.read_bytes())
    data[:19] = b"MATLAB 7.3 MAT-file"
    path.write_bytes(data)
    (line,) = problems_of(CMR, submitted, like)
    assert "of version 7.3; expected: must be of version 5" in line


def test_missing_and_extra_files_are_named(submitted, like):
    path = submitted / "TaskR1" / "MultiCoil" / CASE / CINE
    path.rename(path.with_name("cine_sax.mat"))
    lines = problems_of(CMR, submitted, like)
    assert ["cine_sax.mat: is not of the test set" in lines[0], f"{CINE}: is missing" in lines[1], len(lines)] == [True, True, 2]


@pytest.mark.parametrize("shape", [(5, 31, 18), (6, 5, 18, 31), (7, 5, 31, 18)])
def test_a_reconstruction_of_another_shape_is_refused_with_the_axes_that_are_wanted(shape, like, images, tmp_path):
    write_fastmri(tmp_path / "images" / "MultiCoil" / CASE / "cine_sax_kus_Uniform8.h5", header=b"<x/>", reconstruction=magnitudes(shape))
    with pytest.raises(SubmissionError, match=r"\(frames, slices, readout, phase\) \(6, 5, 31, 18\)"):
        write_submission(CMR, str(tmp_path / "images"), str(like), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_arrays_of_pickled_objects_are_never_loaded(like, images, tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    path = tmp_path / "images" / "MultiCoil" / CASE.replace("Cine", "Mapping") / "T1map_kus_ktRadial16.npy"
    np.save(path, np.array([Trap()], dtype=object))
    with pytest.raises(SubmissionError, match=r"T1map_kus_ktRadial16\.mat"):
        write_submission(CMR, str(tmp_path / "images"), str(like), tmp_path / "out")


def test_a_folder_without_the_challenges_layout_is_refused_with_that_layout(tmp_path):
    write_kus(tmp_path / "flat" / CINE, (31, 18, 2, 5, 6))
    with pytest.raises(ConfigError, match="UnderSample_"):
        check_submission(CMR, tmp_path, str(tmp_path / "flat"))


def test_a_test_file_with_two_arrays_does_not_say_which_is_the_kspace(like, tmp_path):
    with h5py.File(like / "MultiCoil" / CASE / CINE, "r+") as file:
        file["other"] = np.zeros((2, 3, 4))
    with pytest.raises(ScanError, match="2 arrays of 3 to 5 axes"):
        check_submission(CMR, tmp_path, str(like))
