import pyarrow as pa

from echotrain.data.catalog.examples import choose_examples

VOLUMES = {
    **{("mosaic", f"knee{i}"): ("knee", "PD", range(20)) for i in range(30)},
    **{("mosaic", f"kneefs{i}"): ("knee", "PD_FS", range(21)) for i in range(30)},
    ("mosaic", "brain0"): ("brain", "T2", (0, 1, 2, 5, 6, 7, 8)),  # Slices 3 and 4 were left out.
    ("mosaic", "spine0"): ("spine", "T1", range(1)),
}


def table(volumes=VOLUMES, frames=(None,)):
    columns = ("dataset", "volume", "anatomy", "contrast", "slice", "frame")
    rows = [
        (*key, anatomy, contrast, index, frame)
        for key, (anatomy, contrast, slices) in volumes.items()
        for index in slices
        for frame in frames
    ]
    return pa.table({name: [row[position] for row in rows] for position, name in enumerate(columns)})


def test_rare_kinds_are_shown_before_a_common_one_is_shown_twice():
    kinds = [VOLUMES[key[:2]][:2] for key in choose_examples(table(), 4)]
    assert kinds == [("brain", "T2"), ("knee", "PD"), ("knee", "PD_FS"), ("spine", "T1")]


def test_the_middle_one_of_the_slices_that_there_are_is_shown():
    assert [key.slice for key in choose_examples(table(), 4)] == [5, 10, 10, 0]


def test_of_a_slice_with_frames_the_first_that_there_is_is_shown_whatever_their_number():
    cine = choose_examples(table(frames=(3, 2, 7)), 4)
    assert [key._replace(frame=None) for key in cine] == choose_examples(table(), 4)
    assert {key.frame for key in cine} == {2}


def test_the_choice_does_not_depend_on_the_order_of_the_volumes():
    assert choose_examples(table(dict(reversed(VOLUMES.items())))) == choose_examples(table())


def test_no_volume_is_shown_twice_and_few_volumes_are_all_shown():
    chosen = choose_examples(table(), 1000)
    assert len(set(chosen)) == len(chosen) == len(VOLUMES)
    assert choose_examples(table().slice(0, 0)) == []
