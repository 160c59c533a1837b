from echotrain.evaluation.examples import choose_examples

VOLUMES = {
    **{("mosaic", f"knee{i}"): ("knee", "PD", 20) for i in range(30)},
    **{("mosaic", f"kneefs{i}"): ("knee", "PD_FS", 21) for i in range(30)},
    ("mosaic", "brain0"): ("brain", "T2", 9),
    ("mosaic", "spine0"): ("spine", "T1", 1),
}


def test_rare_kinds_are_shown_before_a_common_one_is_shown_twice():
    kinds = [VOLUMES[key[:2]][:2] for key in choose_examples(VOLUMES, 4)]
    assert kinds == [("brain", "T2"), ("knee", "PD"), ("knee", "PD_FS"), ("spine", "T1")]


def test_middle_slices_are_shown():
    assert {key[2] for key in choose_examples(VOLUMES, 4)} == {0, 4, 10}


def test_the_choice_does_not_depend_on_the_order_of_the_volumes():
    assert choose_examples(dict(reversed(VOLUMES.items()))) == choose_examples(VOLUMES)


def test_no_volume_is_shown_twice_and_few_volumes_are_all_shown():
    chosen = choose_examples(VOLUMES, 1000)
    assert len(set(chosen)) == len(chosen) == len(VOLUMES)
    assert choose_examples({}) == []
