import pytest
import torch
from torch import Tensor

from invattn.experiments.kit.training.loader import Batch, ResumableLoader, derive_seed


def make_loader(*, seed: int = 3, epochs: int = 3, rank: int = 0, world_size: int = 1) -> ResumableLoader:
    def sample(index: Tensor, epoch: int) -> Tensor:
        return index + 1000 * epoch

    return ResumableLoader(
        sample, num_samples=11, batch_size=4, epochs=epochs, seed=seed, rank=rank, world_size=world_size
    )


def as_lists(batches: list[Batch]) -> list[tuple[list[int], list[int], int]]:
    return [(batch.images.tolist(), batch.samples.tolist(), batch.step) for batch in batches]


def test_each_epoch_visits_samples_once_and_drops_the_incomplete_batch() -> None:
    batches = list(make_loader())
    assert len(batches) == len(make_loader()) == 6
    assert [batch.step for batch in batches] == list(range(6))
    for epoch in range(3):
        seen = torch.cat([batch.samples for batch in batches[2 * epoch : 2 * epoch + 2]])
        assert len(set(seen.tolist())) == 8
        assert set(seen.tolist()) <= set(range(11))


def test_order_differs_between_epochs_and_seeds() -> None:
    first = as_lists(list(make_loader()))
    assert first[0][1] != first[2][1]
    assert first[0][1] != as_lists(list(make_loader(seed=4)))[0][1]
    assert first == as_lists(list(make_loader()))


def test_the_sample_function_gets_the_epoch() -> None:
    assert all((batch.images - batch.samples == 1000 * (batch.step // 2)).all() for batch in make_loader())


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 6])
def test_a_loader_with_loaded_state_yields_the_rest(steps: int) -> None:
    full = as_lists(list(make_loader()))
    first = make_loader()
    iterator = iter(first)
    for _ in range(steps):
        next(iterator)
    second = make_loader()
    second.load_state_dict(first.state_dict())
    assert as_lists(list(second)) == full[steps:]


def test_processes_share_each_batch() -> None:
    whole = list(make_loader())
    parts = zip(make_loader(rank=0, world_size=2), make_loader(rank=1, world_size=2), strict=True)
    for batch, (left, right) in zip(whole, parts, strict=True):
        assert torch.equal(batch.samples, torch.cat([left.samples, right.samples]))


@pytest.mark.parametrize("batch_size", [0, 12])
def test_impossible_batches_are_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match="number of samples, 11"):
        ResumableLoader(lambda index, epoch: index, num_samples=11, batch_size=batch_size, epochs=1, seed=0)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="2 processes"):
        ResumableLoader(lambda index, epoch: index, num_samples=11, batch_size=3, epochs=1, seed=0, world_size=2)


def test_derived_seeds_do_not_collide_like_sums() -> None:
    assert derive_seed(1, "order", 2) != derive_seed(2, "order", 1)
    assert derive_seed(0, "order", 0) != derive_seed(0, "target", 0)
    assert derive_seed(0, "order", 0) == derive_seed(0, "order", 0)
    assert 0 <= derive_seed(-5, "x") < 2**63
