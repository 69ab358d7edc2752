import itertools

import pytest

from fourfold.training.config import ScheduleConfig, lr_multiplier, steps_of_tokens


def test_warm_up_is_linear_and_the_cosine_ends_at_its_final_multiplier():
    config = ScheduleConfig(warmup_steps=4, final_lr_multiplier=0.1)
    curve = [lr_multiplier(config, step, 24) for step in range(25)]
    assert curve[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert curve[4] == 1.0 and curve[14] == pytest.approx(0.55) and curve[24] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in itertools.pairwise(curve[4:]))


def test_linear_and_constant_schedules():
    assert lr_multiplier(ScheduleConfig(kind="linear"), 5, 20) == pytest.approx(0.75)
    assert lr_multiplier(ScheduleConfig(kind="constant", warmup_steps=2), 19, 20) == 1.0


def test_a_token_budget_is_rounded_up_to_whole_steps():
    assert steps_of_tokens(16 * 144 * 10, 16, 144) == 10
    assert steps_of_tokens(16 * 144 * 10 + 1, 16, 144) == 11
