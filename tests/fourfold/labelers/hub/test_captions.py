"""Captions by checkpoints: compared with the library, and through labels, tokens and evaluation."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from fourfold.data.captions import Captions, captions_of
from fourfold.data.crops import CropConfig
from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.evaluation.samples import EvaluationData, load_samples
from fourfold.labelers import LabelingConfig, integrate_labels, label_shards, train_teachers
from fourfold.labelers.card import label_card
from fourfold.labelers.gallery import label_gallery
from fourfold.labelers.hub.captions import CaptionsConfig, TransformersCaptions
from fourfold.metric_log import NullMetricLog
from fourfold.tokenizers.pretokenizing import pretokenize
from fourfold.tokenizers.training.tokenizer_set import train_tokenizers
from fourfold.training.run_context import RunContext
from tests.fourfold.tokenizers.conftest import tiny_config
from tests.support import tiny_checkpoints as tiny

IMAGES_BHW3 = np.random.default_rng(2).integers(0, 256, (6, 16, 16, 3)).repeat(2, 1).repeat(2, 2).astype(np.uint8)  # 32 × 32
PICTURES = [Image.fromarray(rgb_HW3) for rgb_HW3 in IMAGES_BHW3]
TOKENS = 8


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    return tiny.save(folder, lambda: tiny.blip(folder), seed=3)


def labeler(model: Path, **options) -> TransformersCaptions:
    return TransformersCaptions(CaptionsConfig(model=str(model), batch_size=4, max_tokens=TOKENS, **options))


@pytest.mark.parametrize("prompt", [None, "a photo of"])
def test_blip_says_what_the_library_says(blip: Path, prompt: str | None) -> None:
    processor = hf.BlipProcessor.from_pretrained(blip)
    model = hf.BlipForConditionalGeneration.from_pretrained(blip).eval()
    expected = []
    for picture in PICTURES:
        inputs = processor(images=picture, text=prompt, return_tensors="pt")
        with torch.inference_mode():
            (ids,) = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, num_beams=1)
        expected.append(processor.decode(ids, skip_special_tokens=True).strip())
    found = labeler(blip, prompt=prompt).label({"rgb": IMAGES_BHW3})
    assert found == expected and len(set(found)) > 1
    assert all(text.startswith(prompt or "") for text in found)


def test_florence_says_what_the_pipeline_says(tmp_path: Path) -> None:
    tiny.save(tmp_path, lambda: tiny.florence(tmp_path), seed=7)
    pipeline = hf.pipeline("image-text-to-text", str(tmp_path))
    options = {"max_new_tokens": TOKENS, "do_sample": False, "num_beams": 1}
    for prompt in ("<CAPTION>", "<DETAILED_CAPTION>"):
        expected = [
            pipeline(images=picture, text=prompt, return_full_text=False, generate_kwargs=options)[0]["generated_text"]
            for picture in PICTURES
        ]
        found = labeler(tmp_path, **({} if prompt == "<CAPTION>" else {"prompt": prompt})).label({"rgb": IMAGES_BHW3})
        assert found == [" ".join(text.split()) for text in expected] and len(set(found)) > 1


def test_only_images_without_a_caption_get_one_unless_all_are_replaced(blip: Path) -> None:
    two = Captions("a dog", ["an animal"])
    given = ["", "of the source", "", two, "x", ""]
    described = labeler(blip).label({"rgb": IMAGES_BHW3})
    found = labeler(blip).label({"rgb": IMAGES_BHW3, "caption": given})
    assert found == [described[0], given[1], described[2], two, "x", described[5]] and captions_of(found[3]) == captions_of(two)
    assert labeler(blip, replace=True).label({"rgb": IMAGES_BHW3, "caption": given}) == described


def test_other_families_and_empty_captions_are_refused(tmp_path: Path) -> None:
    tiny.save(tmp_path, tiny.detr)
    with pytest.raises(ValueError, match=r"has type 'detr'\. Captions are made by blip, florence2\. Choose one of these"):
        labeler(tmp_path)
    assert TransformersCaptions.find_problem(" ", None) == "an empty caption"
    assert TransformersCaptions.find_problem("a dog", None) is None


def test_captions_of_a_checkpoint_reach_tokens_and_evaluation(blip: Path, tmp_path: Path, monkeypatch) -> None:
    # 1) Three images with captions of the source, one of them with two, and three without; the checkpoint fails on one
    given = ["", "of the source", "", Captions("a dog", ["an animal"]), "", "x y"]
    keys = [f"k{row}" for row in range(6)]
    shards = ShardSet(tmp_path / "shards")
    for split in ("train", "val"):
        columns = {"rgb": zip(keys, IMAGES_BHW3, strict=True), "caption": zip(keys, given, strict=True)}
        write_columns(shards.root, split, "shard-00000.tar", columns)
        finish_split(shards.root, split, ["rgb", "caption"])
    config = LabelingConfig.model_validate(
        {
            "labelers": {
                "caption": {"kind": "transformers", "model": str(blip), "max_tokens": TOKENS},
                "metadata": "image_metadata",
            },
            "settings": {"image_metadata": {"types": ["caption_n_words"]}},
            "max_missing_share": 0.5,
            "batch_size": 4,
        }
    )
    described = labeler(blip).label({"rgb": IMAGES_BHW3})
    expected = [text or described[row] for row, text in enumerate(given)]
    broken_HW3 = IMAGES_BHW3[4]
    describe = TransformersCaptions.describe

    def failing(self, images):
        if any(np.array_equal(np.asarray(image), broken_HW3) for image in images):
            raise RuntimeError("no words")
        return describe(self, images)

    monkeypatch.setattr(TransformersCaptions, "describe", failing)
    # 2) Labels: aligned, with the origin in the manifest; what reads captions reads these
    teachers = train_teachers(shards, ShardSet(tmp_path / "none"), config, 0, tmp_path / "teachers", NullMetricLog())
    raw = label_shards(shards, teachers, config, tmp_path / "raw")
    labels, report = integrate_labels(raw, shards, config, tmp_path / "labels")
    found = labels.load_column("val", "caption")
    assert isinstance(found[4], Missing) and [*found[:4], *found[5:]] == [*expected[:4], *expected[5:]]
    assert captions_of(found[3]) == ("a dog", "an animal")
    assert labels.manifest("val", "caption").origin["model"] == str(blip)
    words = [values["caption_n_words"] for values in labels.load_column("val", "metadata") if not isinstance(values, Missing)]
    assert words == [len(text.split()) for row, text in enumerate(expected) if row != 4]
    assert "no words" in label_card(labels, config, report) and label_gallery(shards, labels, "val", 3).startswith(b"\x89PNG")
    # 3) Vocabulary and tokens: rows are the captions of an image
    settings = tiny_config().model_copy(update={"visual": {}})
    tokenizers = train_tokenizers(shards, labels, settings, RunContext(0, tmp_path / "tokenizers"))
    tokens = pretokenize(
        shards, labels, tokenizers, CropConfig(), RunContext(0, tmp_path / "tokens"), splits=["train", "val"]
    ).load_column("val", "caption")
    for row, text in enumerate(expected):
        texts = list(captions_of(text)) if row != 4 else [""]
        np.testing.assert_array_equal(tokens[row][: len(texts)], tokenizers.tokens("caption", texts))
        assert not tokens[row][len(texts) :].any()
    assert tokenizers.decode("caption", tokens[0][:1]) == [expected[0]]  # its words are in the vocabulary
    # 4) Evaluation
    samples = load_samples(EvaluationData(shards, labels, None, "val"), "val", ["caption"], 10)
    assert samples.captions == [text if row != 4 else "" for row, text in enumerate(expected)]
    assert samples.is_captioned.tolist() == [True] * 4 + [False, True] and "caption" not in samples.labels
