import numpy as np

from echotrain.seeding import derive_seed, numpy_generator, torch_generator


def test_a_seed_is_the_same_on_every_machine():
    assert derive_seed(42, "mask", 3, "file1000001") == 5803622533074505487


def test_purposes_and_identities_are_independent_streams():
    seeds = {derive_seed(seed, purpose, epoch) for seed in range(3) for purpose in ("mask", "order") for epoch in range(5)}
    assert len(seeds) == 30
    assert derive_seed(1, "mask", 1, 23) != derive_seed(1, "mask", 12, 3)
    assert derive_seed(1, "mask", "1") != derive_seed(1, "mask", 1)


def test_generators_repeat_their_draws():
    assert numpy_generator(1, "noise").random() == numpy_generator(1, "noise").random()
    assert torch_generator(1, "noise").initial_seed() == torch_generator(1, "noise").initial_seed()


def test_numpys_integers_are_integers():
    assert derive_seed(1, "mask", np.int64(7), "a") == derive_seed(1, "mask", 7, "a")
    assert derive_seed(np.uint32(1), "mask", 7, "a") == derive_seed(1, "mask", 7, "a")
