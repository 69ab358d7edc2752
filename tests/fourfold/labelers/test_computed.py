"""Labelers without a network: edges, palettes and metadata, compared with exact truth and with other libraries."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageStat
from scipy.ndimage import binary_dilation

from fourfold.data import codecs
from fourfold.data.fact_tables import fact_table
from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.labelers import LABELERS, LabelingConfig, LabelingContext, integrate_labels
from fourfold.labelers.geometry.edges import CannyConfig, CannyEdges
from fourfold.labelers.image_statistics.metadata import (
    MEASURES,
    ImageMetadata,
    MetadataConfig,
    colorfulness,
    geometric_complexity,
    num_sentences,
    occlusion,
)
from fourfold.labelers.image_statistics.palettes import PaletteConfig, palettes
from fourfold.labelers.protocol import in_order
from fourfold.modalities.metadata import METADATA_TYPES, Range
from fourfold.scenes.world import CLASS_NAMES, CLASS_TABLE, GROUND_ID, ScenesConfig, caption, render, scene
from fourfold.scenes.world.writing import truth_columns

COMPUTED = {"canny_edge": "canny_edges", "color_palette": "color_palettes", "metadata": "image_metadata"}
CONFIG = LabelingConfig(labelers=COMPUTED)
CONTEXT = LabelingContext(class_tables={"semseg": CLASS_TABLE})
SCENES = [scene(0, "val", index, ScenesConfig()) for index in range(8)]
images = hnp.arrays(np.uint8, (8, 8, 3))


@pytest.fixture(scope="module")
def truth():
    rendered = render(SCENES, ScenesConfig())
    columns = {name: [value for _, value in values] for name, values in truth_columns(SCENES, rendered).items()}
    return columns | {
        "rgb": list(rendered.rgb),
        "caption": [caption(one) for one in SCENES],
        "__key__": [s.key for s in SCENES],
    }


def metadata_of(batch, *types):
    return ImageMetadata(MetadataConfig(types=types or tuple(MEASURES)), CONTEXT).label(batch)


def test_the_edge_of_a_disc_is_its_circle():
    y, x = np.mgrid[:64, :64] + 0.5
    radius = np.hypot(x - 32, y - 32)
    image = np.where(radius < 20, 230, 30)[..., None].repeat(3, -1).astype(np.uint8)
    (edges,) = CannyEdges(CannyConfig()).label({"rgb": image[None]})
    assert set(np.unique(edges)) == {0, 255} and edges.dtype == np.uint8
    assert np.abs(radius[edges > 0] - 20).max() < 1.5
    ring = np.abs(radius - 20) < 0.7
    assert (ring & binary_dilation(edges > 0, np.ones((3, 3)))).sum() == ring.sum()


def test_a_flat_image_has_no_edge_and_thresholds_must_be_ordered():
    assert not CannyEdges(CannyConfig()).label({"rgb": np.full((1, 16, 16, 3), 90, np.uint8)})[0].any()
    with pytest.raises(ValueError, match=r"low is 0\.5, above high \(0\.2\)"):
        CannyConfig(low=0.5)


def test_the_palette_of_three_colors_starts_with_the_most_frequent():
    image = np.full((32, 32, 3), (10, 200, 30), np.uint8)
    image[:8] = (250, 0, 0)
    image[:8, :8] = (0, 0, 90)
    found = palettes(image, PaletteConfig())
    assert list(found) == ["1", "2", "3"]
    assert found["3"] == [[10, 200, 30], [250, 0, 0], [0, 0, 90]]
    np.testing.assert_allclose(found["1"][0], image.reshape(-1, 3).mean(0), atol=0.5)


@settings(max_examples=30, deadline=None)
@given(images)
def test_palettes_are_deterministic_and_more_colors_fit_better(image):
    found = palettes(image, PaletteConfig())
    assert found == palettes(image, PaletteConfig())
    assert codecs.decode("color_palette", codecs.encode("color_palette", found)) == found
    pixels = image.reshape(-1, 3).astype(float)
    distance = [np.linalg.norm(pixels[:, None] - np.array(colors), axis=2).min(1).mean() for colors in found.values()]
    assert distance[-1] <= distance[0] + 0.5
    assert all(len(colors) == int(size) for size, colors in found.items())


def test_brightness_contrast_and_saturation_agree_with_other_libraries(truth):
    for image, found in zip(truth["rgb"], metadata_of(truth, "brightness", "contrast", "saturation"), strict=True):
        gray = ImageStat.Stat(Image.fromarray(image).convert("L"))
        assert found["brightness"] == pytest.approx(gray.mean[0], abs=0.6)  # Pillow rounds its grays
        assert found["contrast"] == pytest.approx(gray.stddev[0], abs=0.3)
        mean = np.mean([colorsys.rgb_to_hsv(*(pixel / 255))[1] for pixel in image.reshape(-1, 3)])
        assert found["saturation"] == pytest.approx(255 * mean, abs=1e-3)


def test_colorfulness_follows_the_formula_of_the_paper():
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8, 1).repeat(3, 2)
    assert colorfulness(gray) == 0
    halves = np.zeros((2, 2, 3), np.uint8)
    halves[0], halves[1] = (255, 0, 0), (0, 0, 255)
    # rg: 255 and 0; yb: 127.5 and -255: deviations 127.5 and 191.25, means 127.5 and -63.75
    assert colorfulness(halves) == pytest.approx(np.hypot(127.5, 191.25) + 0.3 * np.hypot(127.5, 63.75))


def test_a_uniform_histogram_of_16_levels_has_4_bits():
    image = np.repeat(np.arange(16, dtype=np.uint8) * 16, 16).reshape(16, 16, 1).repeat(3, 2)
    assert metadata_of({"rgb": [image]}, "entropy") == [{"entropy": 4.0}]


def test_geometric_complexity_is_0_for_a_plane_and_1_for_opposite_halves():
    plane = np.full((8, 8, 3), (128, 128, 0), np.uint8)
    assert geometric_complexity(plane) == pytest.approx(0, abs=1e-12)
    plane[:4] = (127, 127, 255)
    assert geometric_complexity(plane) == pytest.approx(1, abs=1e-6)


DECIMETERS = st.integers(1, 5000).map(lambda count: count / 10)  # between neighboring floats there is no ramp


@given(DECIMETERS, DECIMETERS)
def test_occlusion_is_the_share_of_pixels_at_a_depth_step(near, far):
    depth = np.full((20, 20), near)
    depth[:, 10:] = far
    expected = 0.1 if near != far else 0  # two of 20 columns are at the step
    assert occlusion(depth) == pytest.approx(expected)
    ramp = np.tile(np.linspace(near, far, 100), (100, 1))
    assert occlusion(ramp) == 0


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("a cube", 1), ("A cube. A cone!", 2), ("It is 3.5 m. Yes", 2), ("Eh?!", 1)]
)
def test_sentences_end_with_punctuation_followed_by_space(text, count):
    assert num_sentences(text) == count


def test_metadata_of_scenes_match_their_truth(truth):
    for index, found in enumerate(metadata_of(truth)):
        names = [instance["class_name"] for instance in truth["det"][index]["instances"]]
        assert found["n_coco_instances"] == len(names) and found["coco_instance_diversity"] == len(set(names))
        assert found["n_humans"] == 0 and found["original_width"] == found["original_height"] == 64
        assert found["caption_n_chars"] == len(truth["caption"][index])
        assert found["walkability"] == pytest.approx((truth["semseg"][index] == GROUND_ID).mean(), abs=1e-6)
        assert found["objectness"] == pytest.approx((truth["semseg"][index] > GROUND_ID).mean(), abs=1e-6)
        assert 1 <= found["semantic_diversity"] <= len(CLASS_NAMES)
        for name, value in found.items():
            if isinstance(bins := METADATA_TYPES[name], Range):
                assert bins.low <= value <= bins.high


def test_metadata_require_the_labels_they_are_computed_from():
    def requires(*types):
        return ImageMetadata(MetadataConfig(types=types)).requires

    assert requires("brightness") == ("rgb",) and requires("occlusion_score", "n_humans") == ("depth", "det")
    made = {"metadata": ImageMetadata()}
    with pytest.raises(ValueError, match="'depth', 'det', 'normal', 'semseg'"):
        in_order(made, given=("rgb", "caption"))
    with pytest.raises(ValueError, match="'aesthetic_score' cannot be computed by this labeler"):
        MetadataConfig(types=("aesthetic_score",))


def test_shares_of_classes_need_a_class_table(truth):
    with pytest.raises(ValueError, match="need the class table of `semseg`"):
        ImageMetadata(MetadataConfig(types=("objectness",))).label(truth)


def labels_of(root: Path, truth, **changed) -> ShardSet:
    names = ("depth", "normal", "semseg", "det", "canny_edge", "color_palette", "metadata")
    made = {name: LABELERS.get(by)(None, CONTEXT).label(truth) for name, by in COMPUTED.items()}
    columns = {name: list(zip(truth["__key__"], (truth | made | changed)[name], strict=True)) for name in names}
    write_columns(root, "val", "shard-00000.tar", columns)
    finish_split(root, "val", names, class_tables={"semseg": CLASS_TABLE})
    return ShardSet(root)


def test_integration_recounts_boxes_and_keeps_other_metadata(truth, tmp_path):
    weak = [{"instances": [one | {"score": 0.1 if i else 0.9} for i, one in enumerate(v["instances"])]} for v in truth["det"]]
    raw = labels_of(tmp_path / "raw", truth, det=weak)
    integrated, report = integrate_labels(raw, raw, CONFIG, tmp_path / "integrated")
    before, after = (shards.load_column("val", "metadata") for shards in (raw, integrated))
    for index, value in enumerate(after):
        assert value["n_coco_instances"] == len(integrated.load_column("val", "det")[index]["instances"]) <= 1
        same = value.keys() - {"n_coco_instances", "coco_instance_diversity"}
        assert {name: value[name] for name in same} == {name: before[index][name] for name in same}
    assert not any("out_of_range" in name for name in report["val"])


@pytest.mark.parametrize(
    ("modality", "value"),
    [
        ("canny_edge", np.full((64, 64), 7, np.uint8)),
        ("color_palette", {"2": [[0, 0, 0]]}),
        ("color_palette", {"1": [[0, 0, 300]]}),
        ("metadata", {"brihgtness": 1.0}),
    ],
)
def test_an_impossible_computed_label_is_an_error_that_names_it(truth, tmp_path, modality, value):
    raw = labels_of(tmp_path / "raw", truth, **{modality: [value] * len(SCENES)})
    with pytest.raises(ValueError, match=rf"{modality} labels are missing .* impossible: .*\(e.g. val/{SCENES[0].key}\)"):
        integrate_labels(raw, raw, CONFIG, tmp_path / "integrated")


def test_the_fact_table_describes_computed_labels(truth, tmp_path):
    facts = {row["modality"]: row for row in fact_table(labels_of(tmp_path, truth)) if row["position"] == 0}
    assert (
        facts["color_palette"]["num_colors"] == 7 and 0 <= facts["color_palette"]["min"] <= facts["color_palette"]["max"] <= 255
    )
    assert facts["metadata"]["num_metadata"] == len(MEASURES) and facts["metadata"]["finite"]
    assert (facts["canny_edge"]["min"], facts["canny_edge"]["max"]) == (0, 255)


def test_settings_of_a_labeler_are_validated_by_its_class():
    config = LabelingConfig(labelers=COMPUTED, settings={"canny_edges": {"sigma": 2}})
    assert config.settings["canny_edges"] == CannyConfig(sigma=2)
    assert LabelingConfig.model_validate(config.model_dump(mode="json")) == config
    with pytest.raises(ValueError, match=r"canny_edges\.sgima: Extra inputs are not permitted"):
        LabelingConfig(labelers=COMPUTED, settings={"canny_edges": {"sgima": 2}})
    with pytest.raises(ValueError, match="Did you mean 'canny_edges'"):
        LabelingConfig(labelers=COMPUTED, settings={"canny_egdes": {}})
