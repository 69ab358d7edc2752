"""Scenes of the transfer splits on disk, and an untrained model that is small enough to fine-tune in a test."""

from pathlib import Path

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM
from fourfold.scenes.world.captions import caption
from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.render import render
from fourfold.scenes.world.scene import scene
from fourfold.scenes.world.writing import truth_columns
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig
from fourfold.transfer.tasks import TransferData

SCENES = ScenesConfig(image_size=32)
SPLITS = {"transfer_train": 24, "transfer_val": 12, "transfer_test": 12}


def transfer_data(root: Path) -> TransferData:
    """Write the transfer splits and return them."""
    for split, count in SPLITS.items():
        scenes = [scene(0, split, index, SCENES) for index in range(count)]
        rendered = render(scenes, SCENES)
        images = {"rgb": [(one.key, image) for one, image in zip(scenes, rendered.rgb, strict=True)]}
        for name, columns in (("shards", images), ("truth", truth_columns(scenes, rendered))):
            write_columns(root / name, split, shard_name(0), columns)
            finish_split(root / name, split, list(columns))
    return TransferData(ShardSet(root / "shards"), ShardSet(root / "truth"))


def tiny_text() -> TextTokenizer:
    """Return a tokenizer that is trained on captions of scenes."""
    captions = [caption(scene(0, "train", index, SCENES)) for index in range(200)]
    return TextTokenizer.train(captions, TextTokenizerConfig(vocabulary_size=512))


def tiny_model(text: TextTokenizer) -> FourM:
    """Return an untrained model of images of 32 pixels and captions."""
    modalities = (
        ModalityConfig(name="rgb", kind="pixels", grid=(4, 4)),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=text.vocabulary_size, max_length=40),
    )
    shape = {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2, "patch_size": 8, "patch_stem": "conv"}
    return FourM(ModelConfig(modalities=modalities, embedding_std=0.3, image_temperature=20, **shape))
