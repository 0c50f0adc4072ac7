"""Too little memory is said before the first step, with what would fit."""

from pathlib import Path

import psutil
import pytest
import torch
from tests.tiny import save_tiny, tiny_policy

from amenable.models.adapters import AdapterShape
from amenable.models.policy import Policy
from amenable.pipeline import room
from amenable.pipeline.config import FitConfig
from amenable.pipeline.plan import ACTIVATION_NUMBERS
from amenable.pipeline.room import check_room
from amenable.records.errors import ModelError


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the machine is made to say is free."""
    found = {"bytes": 0}

    class Memory:
        @property
        def available(self) -> int:
            return found["bytes"]

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    return found


def test_the_largest_batch_that_fits_is_named(tmp_path: Path, free: dict[str, int]):
    policy = tiny_policy(tmp_path / "m")
    policy.adapters.add("learner", AdapterShape(rank=2, alpha=4.0, marker_ids=()))
    trained = policy.trained_parameters("learner", "full")
    num_trained = sum(each.numel() for each in trained.values())
    config = policy.network.config
    a_token = 4 * ACTIVATION_NUMBERS * config.num_hidden_layers * config.hidden_size
    fixed = 16 * num_trained + 4 * room.CHUNK_ROWS * len(policy.head_weight)
    fit = FitConfig(tokens_per_batch=1024)

    free["bytes"] = fixed + 1024 * a_token
    check_room(policy, trained, fit)
    free["bytes"] -= 1
    with pytest.raises(ModelError, match=r"--fit\.tokens-per-batch 512 would fit\.$"):
        check_room(policy, trained, fit)
    free["bytes"] = fixed + 127 * a_token
    with pytest.raises(ModelError, match=r"--fit\.tokens-per-batch 64 would fit"):
        check_room(policy, trained, fit)
    free["bytes"] = fixed
    with pytest.raises(ModelError, match="No smaller batch would fit"):
        check_room(policy, trained, fit)


def test_with_layers_in_4_bits_one_works_at_a_time(tmp_path: Path, free: dict[str, int]):
    policy = Policy.load(save_tiny(tmp_path / "m"), torch.float32, in_four_bits=True)
    policy.adapters.add("learner", AdapterShape(rank=2, alpha=4.0, marker_ids=()))
    trained = policy.trained_parameters("learner", "adapter")
    num_trained = sum(each.numel() for each in trained.values())
    # The inputs of two layers of width 32, and the work of one; the largest matrix is 48 x 32.
    a_token = 4 * 32 * (2 + ACTIVATION_NUMBERS)
    fixed = 16 * num_trained + 4 * room.CHUNK_ROWS * len(policy.head_weight) + 4 * 48 * 32
    fit = FitConfig(tokens_per_batch=256)
    free["bytes"] = fixed + 256 * a_token
    check_room(policy, trained, fit)
    free["bytes"] -= 1
    with pytest.raises(ModelError, match=r"--fit\.tokens-per-batch 128 would fit\.$"):
        check_room(policy, trained, fit)
