"""Fine-tuning of tiny models: learning, the table of results, and interrupted comparisons."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from fourfold.generation.conditions import visible_batch
from fourfold.model.fourm import FourM
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.training.loop import _Loop
from fourfold.training.optimizers import OptimizerConfig
from fourfold.training.run_context import RunContext
from fourfold.transfer.arms import PretrainedModel
from fourfold.transfer.baselines import CaptionBaseline, muon_matrices
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import finetune, fit
from fourfold.transfer.learners import TextLearner
from fourfold.transfer.runs import Run, tabulate
from fourfold.transfer.tasks import TRANSFER_TASKS, Examples, load_examples
from tests.fourfold.killing import files_of, kill_in_step
from tests.fourfold.transfer.tiny_model import tiny_model, tiny_text

pytestmark = pytest.mark.numeric
# Exact comparisons must not depend on the resolution of `auto` on this machine.
TINY = TransferConfig(
    num_labels=(8, 16), num_seeds=1, steps=1, batch_size=8, max_tokens=8, num_selection=10, num_test=10, precision="fp32"
)


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    return tiny_text()


@pytest.fixture
def model(text) -> FourM:
    return tiny_model(text)


def compare(world, model, text, folder, config=TINY):
    return finetune(PretrainedModel(model, text, "tiny"), world, config, RunContext(0, folder))


def test_every_task_arm_and_number_of_labels_is_in_the_table(world, model, text, tmp_path):
    multipliers = {"pretrained": (0.3, 0.8), "scratch": (1.0,), "baseline": (1.0,)}  # one arm has a choice
    found = compare(world, model, text, tmp_path, TINY.model_copy(update={"lr_multipliers": multipliers}))
    assert set(found["transfer"]) == {f"{name}_{count}" for name in TINY.task_names for count in (8, 16)}
    assert set(found["transfer"]["vqa_8"]["accuracy"]) == {"pretrained", "scratch", "baseline"}
    assert all(s["n"] == 1 for t in found["transfer"].values() for m in t.values() for s in m.values())
    assert {row["task"] for row in found["examples"]} == {"vqa", "captioning"}
    assert {"prompt", "answer", "pretrained", "scratch", "baseline"} <= set(found["examples"][0])
    json.dumps(found, allow_nan=False)


def test_an_interrupted_comparison_continues_and_ends_with_equal_results(world, model, text, tmp_path, monkeypatch):
    config = TINY.model_copy(update={"tasks": ("vqa", "attributes"), "num_labels": (8,)})
    whole = compare(world, model, text, tmp_path / "whole", config)
    count = 0

    def interrupted(*arguments):
        nonlocal count
        count += 1
        if count > 6:  # in one of the processes
            raise InterruptedError
        fit(*arguments)

    monkeypatch.setattr("fourfold.transfer.finetuning.fit", interrupted)
    with pytest.raises(InterruptedError):
        compare(world, model, text, tmp_path / "interrupted", config)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "interrupted").glob("*-seed*.json")}
    monkeypatch.undo()
    assert 6 <= len(done) <= 12
    assert compare(world, model, text, tmp_path / "interrupted", config) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())


def test_changed_results_are_computed_again(world, model, text, tmp_path, caplog):
    config = TINY.model_copy(update={"tasks": ("vqa",), "num_labels": (8,), "steps": 3})
    whole = compare(world, model, text, tmp_path, config)
    before = files_of(tmp_path)
    path = next(path for path in sorted(tmp_path.glob("vqa-pretrained*")) if "transfer_test" in path.name)
    result = json.loads(path.read_text())
    result["metrics"] = {name: value + 0.5 for name, value in result["metrics"].items()}
    path.write_text(json.dumps(result))
    assert compare(world, model, text, tmp_path, config) == whole
    assert files_of(tmp_path) == before and f"{path.name} changed after it was written" in caplog.text


def test_a_killed_finetuning_resumes_and_ends_with_equal_bytes(one_thread, world, model, text, tmp_path, monkeypatch):
    config = TINY.model_copy(update={"tasks": ("vqa",), "num_labels": (8,), "steps": 6})
    config = config.model_copy(update={"lr_multipliers": dict.fromkeys(config.lr_multipliers, (1.0,))})
    compare(world, model, text, tmp_path / "whole", config)
    monkeypatch.setattr(_Loop, "_is_due", lambda self: True)  # a checkpoint after every step
    kill_in_step(4, lambda: compare(world, model, text, tmp_path / "killed", config))
    checkpoints = {path.name for path in (tmp_path / "killed").glob("*-checkpoints/step-*")}
    # the kill may come before 4 is complete, or before 3 is removed
    assert checkpoints and checkpoints <= {"step-00000003.safetensors", "step-00000004.safetensors"}
    compare(world, model, text, tmp_path / "killed", config)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_finetuning_does_not_change_the_pretrained_model(world, model, text, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compare(world, model, text, tmp_path, TINY.model_copy(update={"tasks": ("vqa",)}))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_few_answers_can_be_memorized(world, model, text):
    task = TRANSFER_TASKS.get("vqa")
    examples = load_examples(task, world, "transfer_train", max_examples=8, seed=0)
    learner = TextLearner(model, text, max_tokens=6)
    config = TINY.model_copy(update={"steps": 40, "optimizer": OptimizerConfig(learning_rate=3e-3, muon_learning_rate=0.02)})
    fit(learner, examples, config, Run("vqa", "scratch", 8, 0, 1.0), RunContext(0))
    with torch.inference_mode():
        predicted = learner.eval().predict(examples)
    assert task.score(predicted, examples) == {"accuracy": 1.0}


def test_the_caption_baseline_memorizes_a_few_captions(world, text):
    task = TRANSFER_TASKS.get("captioning")
    examples = load_examples(task, world, "transfer_train", max_examples=8, seed=0)
    torch.manual_seed(0)
    learner = CaptionBaseline(text, max_tokens=40)
    assert muon_matrices(learner)["memory.weight_hh_l0"] == 3 and "tokens.weight" not in muon_matrices(learner)
    config = TINY.model_copy(update={"steps": 100, "optimizer": OptimizerConfig(learning_rate=3e-3, muon_learning_rate=0.02)})
    fit(learner, examples, config, Run("captioning", "baseline", 8, 0, 2.0), RunContext(0))
    with torch.inference_mode():
        scores = task.score(learner.eval().predict(examples), examples)
    assert scores["pair_f1"] > 0.9


def test_the_input_of_a_text_task_is_that_of_generation(world, model, text):
    examples = load_examples(TRANSFER_TASKS.get("captioning"), world, "transfer_val", max_examples=3, seed=0)
    batch = TextLearner(model, text, max_tokens=30).batch(examples)
    start = torch.tensor([text.sentinel_ids[1]])
    reference = visible_batch(
        {"rgb": torch.from_numpy(examples.rgb), "caption": start.expand(3, 1)}, model.config, 3, model.device
    )
    for name in ("input_modality_BN", "input_position_BN", "input_token_BN"):
        assert torch.equal(getattr(batch, name), getattr(reference, name))
    words = batch.target_id_BM[0][batch.target_keep_BM[0]].tolist()
    assert text.decode_caption(words) == text.decode_caption(text.encode_caption(examples.answers[0])[:29])
    assert batch.target_input_BM[0, 0] == start and words[-1] == text.eos_id
    assert batch.target_input_BM[0].tolist()[1 : len(words)] == words[:-1]


def test_all_kinds_of_questions_are_asked(world):
    vqa = TRANSFER_TASKS.get("vqa")
    examples = load_examples(vqa, world, "transfer_train", max_examples=24, seed=0)
    assert len(examples) == 24
    scenes = world.truth.load_column("transfer_train", "attributes")
    kinds = Counter(
        next(q["kind"] for q in one["questions"] if q["text"] == prompt)
        for one, prompt in zip(scenes, examples.prompts, strict=True)
    )
    assert set(kinds) == {q["kind"] for one in scenes for q in one["questions"]}
    assert max(kinds.values()) <= 24 // 2
    assert load_examples(vqa, world, "transfer_train", max_examples=24, seed=0).prompts == examples.prompts
    assert load_examples(vqa, world, "transfer_train", max_examples=24, seed=1).prompts != examples.prompts


def test_attributes_are_those_of_the_main_object(world):
    task = TRANSFER_TASKS.get("attributes")
    examples = load_examples(task, world, "transfer_test", max_examples=12, seed=0)
    scenes = world.truth.load_column("transfer_test", "attributes")
    assert list(examples.classes["count"] + 1) == [len(one["objects"]) for one in scenes]
    assert task.score(examples.classes, examples)["mean_accuracy"] == 1


def test_the_table_has_mean_and_sample_standard_deviation_over_seeds():
    results = {
        Run("vqa", "scratch", 8, seed, 1.0): {"metrics": {"accuracy": value}} for seed, value in enumerate([0.2, 0.4, 0.6])
    }
    found = tabulate(results)["vqa_8"]["accuracy"]["scratch"]
    assert found == pytest.approx({"mean": 0.4, "std": np.std([0.2, 0.4, 0.6], ddof=1), "n": 3})


def test_too_many_labels_and_unknown_tasks_are_errors(world, model, text, tmp_path):
    with pytest.raises(ValueError, match="more than the 24 of transfer_train"):
        compare(world, model, text, tmp_path, TINY.model_copy(update={"num_labels": (8, 100)}))
    with pytest.raises(ValueError, match="Did you mean 'vqa'"):
        TransferConfig(tasks=("vqqa",))


def test_a_subset_keeps_images_and_texts_together():
    examples = Examples(np.arange(3)[:, None, None, None], ["a", "b", "c"], [], {"count": np.array([1, 2, 3])})
    part = examples.subset(np.array([2, 0]))
    assert (part.prompts, part.answers, list(part.classes["count"]), list(part.rgb.ravel())) == (["c", "a"], [], [3, 1], [2, 0])


def test_every_task_has_a_number_of_steps():
    assert TransferConfig(steps=7).num_steps("vqa") == 7
    each = {"vqa": 3, "captioning": 4, "attributes": 5}
    assert [TransferConfig(steps=each).num_steps(name) for name in each] == [3, 4, 5]
    with pytest.raises(ValueError, match="no number for attributes, captioning"):
        TransferConfig(steps={"vqa": 3})
