"""Generated pairs: a function of their parameters, with an object where the mask says, hidden as far as asked for."""

from __future__ import annotations

import pytest
import torch

from invattn.experiments.camouflage.synthetic import SOURCES, SyntheticCamouflage, read_source


def pairs(part: str = "train", **changes: float) -> SyntheticCamouflage:
    options = {"count": 8, "side": 48, "difficulty": 0.5, "seed": 0} | changes
    return SyntheticCamouflage(
        part,
        count=int(options["count"]),
        side=int(options["side"]),
        difficulty=options["difficulty"],
        seed=int(options["seed"]),
    )


def test_pairs_depend_on_their_number_and_not_on_order_or_count() -> None:
    few, many = pairs(count=4), pairs(count=8)
    for number in (3, 0, 3):
        for one, other in zip(few.pair(number), many.pair(number), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(few.pair(0)[1], few.pair(1)[1])


@pytest.mark.parametrize("change", [{"seed": 1}, {"difficulty": 0.6}, {"side": 47}, {"count": 9}])
def test_every_parameter_counts(change: dict[str, float]) -> None:
    assert pairs().fingerprint() == pairs().fingerprint()
    assert pairs(**change).fingerprint() != pairs().fingerprint()
    assert pairs("test").fingerprint() != pairs().fingerprint()


def test_masks_are_binary_with_an_object_inside() -> None:
    found = pairs(count=30)
    for number in range(len(found)):
        image, mask = found.pair(number)
        assert image.shape == (3, 48, 48)
        assert mask.shape == (48, 48)
        assert set(mask.unique().tolist()) == {0, 255}
        # A mean radius of 0.14 to 0.28 sides gives 6 to 25% of the area; waves and the border change that somewhat.
        assert 0.03 < float((mask > 0).float().mean()) < 0.4


def test_training_and_test_share_no_picture() -> None:
    assert not set(SOURCES["train"]) & set(SOURCES["test"])
    for file in (*SOURCES["train"], *SOURCES["test"]):
        assert min(read_source(file).shape[-2:]) >= 512


def contrast(difficulty: float) -> float:
    """Mean distance, over images, of the mean colours on both sides of the outline."""
    found = pairs(count=20, difficulty=difficulty)
    distances = []
    for number in range(len(found)):
        image, mask = found.pair(number)
        inside = (mask > 0)[None].expand(3, -1, -1)
        means = [image.float()[part].view(3, -1).mean(dim=1) for part in (inside, ~inside)]
        distances.append((means[0] - means[1]).norm())
    return float(torch.stack(distances).mean())


def test_a_difficult_object_has_the_colours_of_its_surroundings() -> None:
    easy, middle, hard = (contrast(difficulty) for difficulty in (0.0, 0.5, 1.0))
    assert easy > 1.3 * middle
    assert middle > hard


@pytest.mark.parametrize(
    "change", [{"difficulty": 1.1}, {"difficulty": -0.1}, {"side": 8}, {"side": 1000}, {"count": 0}]
)
def test_numbers_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="side between 16 and 360 and difficulty between 0 and 1"):
        pairs(**change)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="one of train, test"):
        pairs("validation")


def test_pairs_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding in another order changed single pixels by one grey level, and with them every training."""
    threads, found = torch.get_num_threads(), []
    monkeypatch.setattr(
        "invattn.experiments.camouflage.synthetic.read_source", read_source.__wrapped__
    )  # as a new process
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            pairs = SyntheticCamouflage("train", count=17, side=96, difficulty=0.0, seed=0)
            found.append(torch.stack([pairs.pair(i)[0] for i in range(17)]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
