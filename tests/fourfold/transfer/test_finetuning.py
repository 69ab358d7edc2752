"""Fine-tuning on tiny models: what an arm learns, what the table says, what a killed comparison keeps."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.generation.conditions import visible_batch
from fourfold.metric_log import NullMetricLog
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM
from fourfold.scenes.world.captions import caption
from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.render import render
from fourfold.scenes.world.scene import scene
from fourfold.scenes.world.writing import truth_columns
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig
from fourfold.training.optimizers import OptimizerConfig
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import Run, finetune, fit, tabulate
from fourfold.transfer.learners import TextLearner
from fourfold.transfer.tasks import TASKS, Examples, load_examples, task

pytestmark = pytest.mark.numeric
SCENES = ScenesConfig(image_size=32)
SPLITS = {"transfer_train": 24, "transfer_val": 12, "transfer_test": 12}
# exact comparisons must not depend on what `auto` means on this machine
TINY = TransferConfig(
    num_labels=(8, 16), num_seeds=1, steps=1, batch_size=8, max_tokens=8, num_selection=10, num_test=10, precision="fp32"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    for split, count in SPLITS.items():
        scenes = [scene(0, split, index, SCENES) for index in range(count)]
        rendered = render(scenes, SCENES)
        pictures = {"rgb": [(one.key, picture) for one, picture in zip(scenes, rendered.rgb, strict=True)]}
        for name, columns in (("shards", pictures), ("truth", truth_columns(scenes, rendered))):
            write_columns(root / name, split, shard_name(0), columns)
            finish_split(root / name, split, list(columns))
    return ShardSet(root / "shards"), ShardSet(root / "truth")


@pytest.fixture(scope="module")
def text() -> TextTokenizer:
    captions = [caption(scene(0, "train", index, SCENES)) for index in range(200)]
    return TextTokenizer.train(captions, TextTokenizerConfig(vocabulary_size=512))


@pytest.fixture
def model(text) -> FourM:
    modalities = (
        ModalityConfig(name="rgb", kind="pixels", grid=(4, 4)),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=text.vocabulary_size, max_length=40),
    )
    shape = {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2, "patch_size": 8, "patch_stem": "conv"}
    return FourM(ModelConfig(modalities=modalities, embedding_std=0.3, image_temperature=20, **shape))


def compare(world, model, text, folder, config=TINY):
    return finetune(model, text, *world, config, 0, folder, NullMetricLog(), digest="tiny")


def test_every_task_arm_and_number_of_labels_is_in_the_table(world, model, text, tmp_path):
    found = compare(world, model, text, tmp_path)
    assert set(found["transfer"]) == {f"{name}_{count}" for name in TASKS for count in (8, 16)}
    assert set(found["transfer"]["vqa_8"]["accuracy"]) == {"pretrained", "scratch", "baseline"}
    assert all(s["n"] == 1 for t in found["transfer"].values() for m in t.values() for s in m.values())
    assert {row["task"] for row in found["examples"]} == {"vqa", "captioning"}
    assert {"prompt", "answer", "pretrained", "scratch", "baseline"} <= set(found["examples"][0])
    json.dumps(found, allow_nan=False)


def test_a_killed_comparison_goes_on_where_it_stopped_and_ends_the_same(world, model, text, tmp_path, monkeypatch):
    config = TINY.model_copy(update={"tasks": ("vqa", "attributes"), "num_labels": (8,)})
    whole = compare(world, model, text, tmp_path / "whole", config)
    count = 0

    def dies(*arguments):
        nonlocal count
        count += 1
        if count > 10:
            raise KeyboardInterrupt
        fit(*arguments)

    monkeypatch.setattr("fourfold.transfer.finetuning.fit", dies)
    with pytest.raises(KeyboardInterrupt):
        compare(world, model, text, tmp_path / "killed", config)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*-seed*.json")}
    monkeypatch.undo()
    assert len(done) == 10
    assert compare(world, model, text, tmp_path / "killed", config) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())


def test_the_pretrained_arm_starts_from_the_model_which_is_left_as_it_was(world, model, text, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compare(world, model, text, tmp_path, TINY.model_copy(update={"tasks": ("vqa",)}))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_few_answers_can_be_learned_by_heart(world, model, text):
    which = task("vqa")
    examples = load_examples(which, "transfer_train", *world, most=8, seed=0)
    learner = TextLearner(model, text, most_tokens=6)
    config = TINY.model_copy(update={"steps": 40, "optimizer": OptimizerConfig(learning_rate=3e-3, muon_learning_rate=0.02)})
    fit(learner, examples, config, Run("vqa", "scratch", 8, 0, 1.0), seed=0)
    with torch.inference_mode():
        predicted = learner.eval().predict(examples)
    assert which.score(predicted, examples) == {"accuracy": 1.0}


def test_a_text_task_shows_the_model_what_pretraining_showed_it(world, model, text):
    examples = load_examples(task("captioning"), "transfer_val", *world, most=3, seed=0)
    batch = TextLearner(model, text, most_tokens=30).batch(examples)
    start = torch.tensor([text.sentinel_ids[1]])
    judge = visible_batch({"rgb": torch.from_numpy(examples.rgb), "caption": start.expand(3, 1)}, model.config, 3, model.device)
    for name in ("input_modality_BN", "input_position_BN", "input_token_BN"):
        assert torch.equal(getattr(batch, name), getattr(judge, name))
    words = batch.target_id_BM[0][batch.target_keep_BM[0]].tolist()
    assert text.decode_caption(words) == text.decode_caption(text.encode_caption(examples.answers[0])[:29])
    assert batch.target_input_BM[0, 0] == start and words[-1] == text.eos_id
    assert batch.target_input_BM[0].tolist()[1 : len(words)] == words[:-1]


def test_questions_are_spread_evenly_over_their_kinds(world):
    examples = load_examples(task("vqa"), "transfer_train", *world, most=24, seed=0)
    assert len(examples) == 24
    scenes = world[1].load_column("transfer_train", "attributes")
    kinds = Counter(
        next(q["kind"] for q in one["questions"] if q["text"] == prompt)
        for one, prompt in zip(scenes, examples.prompts, strict=True)
    )
    assert set(kinds) == {q["kind"] for one in scenes for q in one["questions"]}
    assert max(kinds.values()) <= 24 // 2
    assert load_examples(task("vqa"), "transfer_train", *world, most=24, seed=0).prompts == examples.prompts
    assert load_examples(task("vqa"), "transfer_train", *world, most=24, seed=1).prompts != examples.prompts


def test_attributes_are_those_of_the_main_object(world):
    examples = load_examples(task("attributes"), "transfer_test", *world, most=12, seed=0)
    scenes = world[1].load_column("transfer_test", "attributes")
    assert list(examples.classes["count"] + 1) == [len(one["objects"]) for one in scenes]
    assert task("attributes").score(examples.classes, examples)["mean_accuracy"] == 1


def test_the_table_holds_mean_and_sample_deviation_over_seeds():
    results = {
        Run("vqa", "scratch", 8, seed, 1.0): {"metrics": {"accuracy": value}} for seed, value in enumerate([0.2, 0.4, 0.6])
    }
    found = tabulate(results)["vqa_8"]["accuracy"]["scratch"]
    assert found == pytest.approx({"mean": 0.4, "std": np.std([0.2, 0.4, 0.6], ddof=1), "n": 3})


def test_too_many_labels_and_unknown_tasks_are_errors_that_say_what_to_do(world, model, text, tmp_path):
    with pytest.raises(ValueError, match="more than the 24 of transfer_train"):
        compare(world, model, text, tmp_path, TINY.model_copy(update={"num_labels": (8, 100)}))
    with pytest.raises(ValueError, match="Did you mean 'vqa'"):
        task("vqqa")


def test_a_subset_keeps_what_belongs_together():
    examples = Examples(np.arange(3)[:, None, None, None], ["a", "b", "c"], [], {"count": np.array([1, 2, 3])})
    part = examples.subset(np.array([2, 0]))
    assert (part.prompts, part.answers, list(part.classes["count"]), list(part.rgb.ravel())) == (["c", "a"], [], [3, 1], [2, 0])


def test_every_task_has_a_number_of_steps_its_own_or_that_of_all():
    assert TransferConfig(steps=7).num_steps("vqa") == 7
    each = {"vqa": 3, "captioning": 4, "attributes": 5}
    assert [TransferConfig(steps=each).num_steps(name) for name in each] == [3, 4, 5]
    with pytest.raises(ValueError, match="no number for captioning, attributes"):
        TransferConfig(steps={"vqa": 3})
