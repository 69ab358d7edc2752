"""The gallery of labels."""

import io

import numpy as np
from PIL import Image

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.images import DEPTH_COLORS
from fourfold.labelers.gallery import label_gallery
from fourfold.modalities import ClassTable

TABLE = ClassTable(names=("sky", "ball"), things=(1,), colors=((10, 20, 250), (250, 20, 10)))


def write_set(root, columns, class_tables=None):
    named = {name: [(f"{i:06d}", value) for i, value in enumerate(values)] for name, values in columns.items()}
    write_columns(root, "val", shard_name(0), named)
    finish_split(root, "val", list(columns), class_tables=class_tables)
    return ShardSet(root)


def test_every_label_is_drawn_and_equal_labels_give_equal_bytes(tmp_path):
    images = np.full((2, 16, 16, 3), 120, np.uint8)
    shards = write_set(tmp_path / "shards", {"rgb": images, "caption": ["a ball", "a far ball"]})
    columns = {
        "depth": np.stack([np.full((16, 16), 3.0), np.full((16, 16), 300.0)]).astype(np.float16),
        "semseg": np.ones((2, 16, 16), np.uint8),
        "det": [{"instances": [{"box": [0.1, 0.1, 0.9, 0.9], "class_name": "ball", "score": 1.0}]}] * 2,
    }
    labels = write_set(tmp_path / "labels", columns, {"semseg": TABLE})
    png = label_gallery(shards, labels, "val")
    assert png == label_gallery(shards, labels, "val")
    colors = {color for _, color in Image.open(io.BytesIO(png)).convert("RGB").getcolors(maxcolors=1_000_000)}
    assert {TABLE.colors[1], (120, 120, 120)} <= colors  # the segmentation in its table's colors, and the image
    # 3 and 300 meters have different colors: the ends of the scale are those of the samples.
    ends = {tuple(DEPTH_COLORS(end, bytes=True)[:3]) for end in (0.0, 1.0)}
    assert ends <= colors
