import gzip
import json
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from fourfold.data.cursor import Cursor, index_batches
from fourfold.digests import DIGESTS_FILE
from fourfold.reuse import FINGERPRINT_FILE
from fourfold.training import checkpoints
from fourfold.training.checkpoints import CheckpointWriter
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.histories import read_history
from fourfold.training.loop import BEST_FILE, HISTORY_FILE, TrainingSetup, train
from fourfold.training.optimizers import OptimizerConfig, build_optimizer
from fourfold.training.performance import Meter
from fourfold.training.run_context import RunContext

sys.path.insert(0, str(Path(__file__).parent))
import tiny_run

CONSTANT = ScheduleConfig(kind="constant")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_run_killed_twice_equals_an_uninterrupted_run(tmp_path):
    tiny_run.run_all(tmp_path)
    unbroken, resumed = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("unbroken", "broken"))
    # from the checkpoint of step 12, or the one before if that was still being written
    assert set(resumed["losses"]) in ({str(step) for step in range(first, 16)} for first in (9, 12))
    assert resumed["losses"].items() <= unbroken["losses"].items()
    assert resumed["weights"] == unbroken["weights"]
    assert resumed["state"] == unbroken["state"]
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "unbroken")
    kept = {"step-00000016.safetensors", "step-00000015.safetensors"}
    assert {BEST_FILE, HISTORY_FILE, FINGERPRINT_FILE, DIGESTS_FILE} | kept == set(files_of(tmp_path / "broken"))
    assert unbroken["state"]["skipped_steps"] == 1


def test_a_killed_run_with_damaged_files_ends_in_the_bytes_of_an_uninterrupted_run(tmp_path):
    """A checkpoint that changed is not resumed from, and best weights that changed are computed again."""
    tiny_run.run(tmp_path, ("unbroken", -1), ("broken", 14))
    kept = sorted(path.name for path in (tmp_path / "broken").glob("step-*"))
    *_, before, newest = kept  # there may be a third one, which the run had no time to remove
    for number, damaged in enumerate(([newest], kept, [BEST_FILE], [DIGESTS_FILE])):
        copy = f"damaged{number}"
        shutil.copytree(tmp_path / "broken", tmp_path / copy)
        for name in damaged:
            content = bytearray((tmp_path / copy / name).read_bytes())
            content[-9] ^= 1  # of a tensor, or of a digest
            (tmp_path / copy / name).write_bytes(content)
        tiny_run.run(tmp_path, (copy, -1))
        assert files_of(tmp_path / copy) == files_of(tmp_path / "unbroken"), damaged
        steps = map(int, json.loads((tmp_path / f"{copy}.json").read_text())["losses"])
        assert min(steps) == (int(before[5:13]) if number == 0 else 0) or damaged == [DIGESTS_FILE]


def test_checkpoints_by_time_change_neither_results_nor_files(tmp_path, monkeypatch):
    by_time = {}
    for name, seconds in (("never", None), ("always", 1e-9)):
        monkeypatch.setattr("fourfold.training.loop.MAX_SAVING_SHARE", float("inf"))
        state, steps = timed_run(tmp_path / name, seconds, monkeypatch)
        by_time[name] = state, files_of(tmp_path / name)
        assert steps == ([4, 8, 10] if seconds is None else list(range(1, 11)))
    assert by_time["never"] == by_time["always"]
    assert {"step-00000008.safetensors", "step-00000010.safetensors"} < set(files_of(tmp_path / "always"))


def test_checkpoints_by_time_take_a_hundredth_of_the_time_at_most(tmp_path, monkeypatch):
    now = iter(range(0, 10**6, 7))  # each reading is 7 s after the one before, so a save takes 7 s
    monkeypatch.setattr("fourfold.training.loop.time.monotonic", lambda: next(now))
    _, steps = timed_run(tmp_path, 60, monkeypatch)
    assert steps == [4, 8, 10]  # the next one by time would come after 700 s, a hundred steps


def test_an_error_leaves_nothing_that_still_writes_into_the_folder(tmp_path, monkeypatch):
    save = checkpoints._save_file
    monkeypatch.setattr(checkpoints, "_save_file", lambda *one: (time.sleep(0.3), save(*one)))

    def fails_at_the_fourth_step(model, step):
        if step == 3:
            raise KeyboardInterrupt
        return model.weight.square().sum(), {}

    with pytest.raises(KeyboardInterrupt):
        small_run(fails_at_the_fourth_step, RunContext(0, tmp_path), checkpoint_every=3)
    assert sorted(files_of(tmp_path)) == [DIGESTS_FILE, "step-00000003.safetensors"]


def timed_run(folder, seconds, monkeypatch):
    torch.manual_seed(0)
    model, saved, save = nn.Linear(4, 1), [], CheckpointWriter.save
    monkeypatch.setattr(CheckpointWriter, "save", lambda writer, one: (saved.append(one.step), save(writer, one)))
    data = torch.randn(16, 4)
    setup = TrainingSetup(
        model,
        lambda indices, step: (model(data[indices]).square().mean(), {}),
        lambda cursor: index_batches(16, 8, 0, start=cursor),
        build_optimizer(model, OptimizerConfig(kind="adamw")),
        10,
        CONSTANT,
    )
    config = LoopConfig(checkpoint_every=4, checkpoint_seconds=seconds, keep_checkpoints=2)
    state = train(setup, config, RunContext(0, folder))
    monkeypatch.setattr(CheckpointWriter, "save", save)
    return state, saved


def test_a_scratch_folder_is_removed_when_the_result_is_saved_and_kept_otherwise(tmp_path):
    context = RunContext(0, tmp_path)
    with pytest.raises(KeyError), context.scratch("here") as inside:
        (inside.root).mkdir()
        raise KeyError
    assert (tmp_path / "here").exists() and inside.is_scratch
    with context.scratch("here"):
        pass
    assert not (tmp_path / "here").exists()
    with RunContext(0).scratch("nowhere") as inside:
        assert inside.folder is None


def small_run(compute_loss=None, context=None, **settings):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    data = torch.randn(16, 4)
    default = lambda indices, step: ((model(data[indices]) - data[indices].sum(1, keepdim=True)).square().mean(), {})  # noqa: E731
    optimizer = build_optimizer(model, OptimizerConfig(kind="adamw", learning_rate=0.05, weight_decay=0))
    loss = default if compute_loss is None else lambda indices, step: compute_loss(model, step)
    batches = lambda cursor: index_batches(16, 8, 0, start=cursor)  # noqa: E731
    setup = TrainingSetup(model, loss, batches, optimizer, 60, CONSTANT)
    return model, train(setup, LoopConfig(**settings), context or RunContext(0))


def test_the_curves_of_a_training_in_a_scratch_folder_stay_beside_it(tmp_path):
    with RunContext(0, tmp_path).scratch("work", "curve.json") as context:
        _, state = small_run(context=context, log_every=10)
    assert len(state.history) == 6 and read_history(tmp_path / "curve.json") == state.history
    assert sorted(files_of(tmp_path)) == ["curve.json", DIGESTS_FILE]
    (tmp_path / "curve.json").write_text("[]")
    assert read_history(tmp_path / "curve.json") == read_history(tmp_path / "absent.json") == []
    with RunContext(0, tmp_path / "other").scratch("work") as context:
        small_run(context=context)
    assert not (tmp_path / "other").exists()


def test_training_works_without_a_folder():
    _, state = small_run(log_every=10)
    assert [figures["step"] for figures in state.history] == [10, 20, 30, 40, 50, 60]
    assert state.history[-1]["loss"] < 0.2 * state.history[0]["loss"]


def test_a_non_finite_gradient_is_skipped_and_counted():
    model, state = small_run(lambda model, step: (model.weight.sum() * (float("inf") if step == 3 else 0.0), {}), log_every=60)
    assert state.skipped_steps == 1
    assert state.history[-1]["skipped_steps"] == 1
    assert torch.isfinite(model.weight).all()


def test_many_non_finite_gradients_are_an_error():
    with pytest.raises(FloatingPointError, match="Lower the learning rate"):
        small_run(lambda model, step: (model.weight.sum() * float("nan"), {}))


def test_consecutive_non_finite_gradients_are_an_error():
    def now_and_then(bad):
        return lambda model, step: (model.weight.sum() * (float("nan") if step in bad else 0.0), {})

    allowed = {"max_skipped_share": 0.5, "max_skipped_in_a_row": 3}
    assert small_run(now_and_then({2, 3, 5, 6, 9, 10}), **allowed)[1].skipped_steps == 6
    with pytest.raises(FloatingPointError, match=r"the last 3 gradients up to step 7 were not finite. Lower the learning rate"):
        small_run(now_and_then({2, 3, 5, 6, 7}), **allowed)


class Recorder:
    def __init__(self):
        self.metrics, self.files = [], []

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, metrics))

    def log_figure(self, figure, name):
        raise AssertionError("nothing is drawn while training")

    def log_file(self, path, name):
        self.files.append((path, name))


def tiny_training(folder, log, **options):
    model = nn.Linear(4, 1)
    optimizer = build_optimizer(model, OptimizerConfig(kind="adamw"))
    data = torch.randn(16, 4)
    loss = lambda indices, step: (model(data[indices]).square().mean(), {})  # noqa: E731
    batches = lambda cursor: index_batches(16, 8, 0, start=cursor)  # noqa: E731
    setup = TrainingSetup(model, loss, batches, optimizer, 12, CONSTANT)
    return train(setup, LoopConfig(log_every=4), RunContext(0, folder, log), **options)


def test_performance_is_logged_but_not_part_of_the_history(tmp_path):
    log = Recorder()
    state = tiny_training(tmp_path, log)
    speeds = [(step, metrics) for step, metrics in log.metrics if "performance/steps_per_second" in metrics]
    assert [step for step, _ in speeds] == [4, 8, 12]
    for _, metrics in speeds:
        assert metrics["performance/steps_per_second"] > 0 and 0 <= metrics["performance/data_wait_share"] <= 1
        assert 50 < metrics["performance/peak_memory_megabytes"] < 100_000
    assert not any("performance" in name for figures in state.history for name in figures)


def test_a_profiler_trace_is_written_and_logged(tmp_path):
    log = Recorder()
    tiny_training(tmp_path, log, profile_steps=2)
    path = tmp_path / "profile" / "rank-0.json.gz"
    assert log.files == [(path, "profile/rank-0.json.gz")]
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    assert sum(event.get("name", "").startswith("ProfilerStep#") and event.get("ph") == "X" for event in events) == 2


def test_the_meter_excludes_paused_time():
    now = iter([0.0, 1.0, 2.0, 5.0, 9.0, 14.0, 14.0, 100.0, 100.0])  # begun, waiting 1 to 2, aside 5 to 9, reported at 14
    meter = Meter(torch.device("cpu"), peak=100.0, clock=lambda: next(now))
    with meter.waiting():
        meter.count(samples=30, flops=500.0)
    with meter.paused():
        meter.count(samples=20)
    metrics = meter.metrics(num_steps=5, num_processes=2)
    assert metrics["performance/samples_per_second"] == 5 and metrics["performance/steps_per_second"] == 0.5
    assert metrics["performance/data_wait_share"] == 0.1 and metrics["performance/mfu"] == 500 / 10 / 200
    assert "performance/mfu" not in meter.metrics(1)


def test_index_batches_depend_only_on_the_cursor():
    stream = index_batches(10, 3, 7, "x")
    unbroken = [next(stream) for _ in range(9)]
    for _, cursor in unbroken[:-1]:
        following = next(index_batches(10, 3, 7, "x", start=cursor))
        expected = unbroken[[entry[1] for entry in unbroken].index(cursor) + 1]
        assert (following[0] == expected[0]).all() and following[1] == expected[1]
    first_epoch = [i for indices, cursor in unbroken[:3] for i in indices]
    assert len(set(first_epoch)) == 9
    assert unbroken[2][1] == Cursor(0, 9) and unbroken[3][1] == Cursor(1, 3)
    with pytest.raises(ValueError, match="Lower the batch size"):
        next(index_batches(2, 3, 0))
