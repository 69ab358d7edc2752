"""RandAugment, color and large-scale jitter: against timm and torchvision, what is drawn, and maps that follow."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as judge

from fourfold.data.cursor import index_batches
from fourfold.plugins import load_plugins
from fourfold.seeds import numpy_generator
from fourfold.training.run_context import RunContext
from fourfold.transfer.benchmark_settings import ColorJitterConfig, RandAugmentConfig, TrainedBenchmarkConfig
from fourfold.transfer.benchmarks.augmentation import (
    MEAN_COLOR,
    NAMES,
    OPERATIONS,
    apply_operation,
    color_jittered,
    draw_colors,
    draw_jitter,
    draw_operations,
    rand_augmented,
)
from fourfold.transfer.benchmarks.stream import FineTuned
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import finetune
from fourfold.transfer.tasks import TransferData, select_tasks
from tests.fourfold.transfer import benchmark_sets

# Written by timm 1.0.31 and Pillow 13: AugmentOp of each operation at three magnitudes, with and without a negative sign.
# timm fails at 0 bits with Pillow 13, so the result of `posterize` at magnitude 10 is that of earlier versions: black
REFERENCE = Path("tests/reference/rand_augment.npz")
DEFAULT = RandAugmentConfig()
BICUBIC = InterpolationMode.BICUBIC


@pytest.fixture(autouse=True)
def plugin():
    load_plugins(["fourfold.transfer.benchmarks"])  # tests/conftest.py forgets it


@pytest.fixture(scope="module")
def reference(request):
    return dict(np.load(request.config.rootpath / REFERENCE, allow_pickle=False))


def config(name, root, **others):
    return TransferConfig(
        tasks=(name,), num_labels=(1000,), num_seeds=1, steps=2, batch_size=8, precision="fp32",
        arms={"baseline": {"start": "baseline"}}, lr_multipliers={"baseline": (1.0,)},
        heads={"dense": {"width": 16, "depth": 1}}, benchmarks={name: {"path": root, "held_out": 3, **others}},
    )  # fmt: skip


def opened(name, root, **others):
    """Return a task with its data, and the examples that may be learned."""
    tasks, _ = select_tasks([name], TransferData(None, None, benchmarks=config(name, root, **others).benchmarks))
    return tasks[name], tasks[name].stream.pool(tasks[name], 32, 0)


@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_operations_equal_those_of_timm(reference, index):
    name = NAMES[index]
    assert str(reference["operations"][index]).lower().startswith(name.replace("_", ""))
    for row, magnitude in enumerate(reference["magnitudes"]):
        for column, sign in enumerate((1, -1 if OPERATIONS[name].has_sign else 1)):
            found = apply_operation(reference["rgb"], name, sign * magnitude / 10)
            assert found.dtype == np.uint8 and found.shape == reference["rgb"].shape
            # Versions of Pillow round interpolated levels and blends differently
            assert np.abs(found - reference["augmented"][index, row, column].astype(int)).max() <= 1


def shear(image, x, y):
    angles = [float(np.degrees(np.arctan(value))) for value in (x, y)]
    return judge.affine(image, 0, [0, 0], 1.0, angles, BICUBIC, list(MEAN_COLOR), center=[0, 0])


JUDGES = {  # strength ±1
    "auto_contrast": lambda image, sign: judge.autocontrast(image),
    "equalize": lambda image, sign: judge.equalize(image),
    "invert": lambda image, sign: judge.invert(image),
    "rotate": lambda image, sign: judge.rotate(image, 30.0 * sign, BICUBIC, fill=list(MEAN_COLOR)),
    "solarize": lambda image, sign: judge.solarize(image, 0),
    "color": lambda image, sign: judge.adjust_saturation(image, 1.9 if sign > 0 else 0.1),
    "contrast": lambda image, sign: judge.adjust_contrast(image, 1.9 if sign > 0 else 0.1),
    "brightness": lambda image, sign: judge.adjust_brightness(image, 1.9 if sign > 0 else 0.1),
    "sharpness": lambda image, sign: judge.adjust_sharpness(image, 1.9 if sign > 0 else 0.1),
    "shear_x": lambda image, sign: shear(image, 0.3 * sign, 0),
    "shear_y": lambda image, sign: shear(image, 0, 0.3 * sign),
    # The arguments of torchvision are pixels to the right and down; 45 % of 20 columns are 9
    "translate_x": lambda image, sign: judge.affine(image, 0, [-9 * sign, 0], 1.0, [0, 0], BICUBIC, list(MEAN_COLOR)),
    "translate_y": lambda image, sign: judge.affine(image, 0, [0, -9 * sign], 1.0, [0, 0], BICUBIC, list(MEAN_COLOR)),
}


@pytest.mark.parametrize("name", JUDGES)
def test_operations_equal_those_of_torchvision(name):
    rgb = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for sign in (1, -1):
        expected = np.asarray(JUDGES[name](Image.fromarray(rgb), sign))
        assert np.array_equal(apply_operation(rgb, name, sign if OPERATIONS[name].has_sign else 1), expected)


def test_posterize_keeps_the_bits_of_pillow():
    rgb = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for bits in (4, 3, 2, 1):
        expected = np.asarray(judge.posterize(Image.fromarray(rgb), bits))
        assert np.array_equal(apply_operation(rgb, "posterize", (4 - bits) / 4), expected)
    assert not apply_operation(rgb, "posterize", 1).any()


def test_statistics_of_drawing():
    rng, images = np.random.default_rng(0), 10_000
    drawn = [draw_operations(DEFAULT, rng) for _ in range(images)]
    counts = np.bincount([len(each) for each in drawn], minlength=3) / images
    assert counts == pytest.approx([0.25, 0.5, 0.25], abs=0.02)  # two, each with probability 1/2
    names, strengths = zip(*(pair for each in drawn for pair in each), strict=True)
    shares = np.array([names.count(name) for name in NAMES]) / len(names)
    assert shares == pytest.approx(np.full(15, 1 / 15), abs=0.01)
    assert any(each[0][0] == each[1][0] for each in drawn if len(each) == 2)  # with replacement
    magnitudes = 10 * np.abs(strengths)
    cut = np.clip(np.random.default_rng(1).normal(9, 0.5, 200_000), 0, 10)
    assert magnitudes.max() == 10
    assert np.quantile(magnitudes, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(cut, [0.1, 0.5, 0.9]), abs=0.03)
    signed = [strength < 0 for name, strength in zip(names, strengths, strict=True) if OPERATIONS[name].has_sign]
    assert np.mean(signed) == pytest.approx(0.5, abs=0.03)
    assert all(strength >= 0 for name, strength in zip(names, strengths, strict=True) if not OPERATIONS[name].has_sign)


def test_one_operation_at_a_fixed_magnitude_is_that_operation():
    rgb = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    fixed = RandAugmentConfig(operations=1, magnitude=5, magnitude_std=0, probability=1)
    seen = set()
    for seed in range(40):
        ((name, strength),) = draw_operations(fixed, np.random.default_rng(seed))
        assert abs(strength) == 0.5
        found = rand_augmented(rgb, fixed, np.random.default_rng(seed))
        assert np.array_equal(found, apply_operation(rgb, name, strength))
        seen.add(name)
    assert len(seen) > 10


COLOR_JUDGES = {
    "brightness": judge.adjust_brightness,
    "contrast": judge.adjust_contrast,
    "saturation": judge.adjust_saturation,
    "hue": judge.adjust_hue,
    "gray": lambda image, _: judge.rgb_to_grayscale(image, 3),
}


@given(
    jitter=st.builds(
        ColorJitterConfig,
        brightness=st.sampled_from([0, 0.4, 1]),
        contrast=st.sampled_from([0, 0.4, 1]),
        saturation=st.sampled_from([0, 0.2, 1]),
        hue=st.sampled_from([0, 0.1, 0.5]),
        gray=st.sampled_from([0, 0.5]),
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_color_jitter_equals_torchvision_with_the_same_factors(jitter, seed):
    rgb = np.random.default_rng(seed).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    rgb[:6] = np.random.default_rng(seed).integers(0, 256, 3)  # also one color, and gray ones
    rgb[6:8] = rgb[6:8, :, :1]
    expected = Image.fromarray(rgb)
    for name, value in draw_colors(jitter, np.random.default_rng(seed)):
        expected = COLOR_JUDGES[name](expected, value)
    found = color_jittered(rgb, jitter, np.random.default_rng(seed))
    assert found.dtype == np.uint8 and np.array_equal(found, np.asarray(expected))


def test_statistics_of_color_jitter():
    rng, images = np.random.default_rng(0), 8000
    jitter = ColorJitterConfig(brightness=0.4, contrast=0.3, saturation=0.2, hue=0.1, probability=0.5, gray=0.25)
    drawn = [draw_colors(jitter, rng) for _ in range(images)]
    is_gray = np.array([bool(each) and each[-1][0] == "gray" for each in drawn])
    applied = [each[:-1] if gray else each for each, gray in zip(drawn, is_gray, strict=True)]
    is_used = np.array([bool(each) for each in applied])
    assert np.mean(is_used) == pytest.approx(0.5, abs=0.02) and np.mean(is_gray) == pytest.approx(0.25, abs=0.02)
    assert np.mean(is_gray & is_used) == pytest.approx(0.125, abs=0.02)  # independent
    orders = [tuple(name for name, _ in each) for each in applied if each]
    expected = list(itertools.permutations(("brightness", "contrast", "saturation", "hue")))
    shares = np.array([orders.count(order) for order in expected]) / len(orders)
    assert shares == pytest.approx(np.full(24, 1 / 24), abs=0.015)
    for name, low, high in (("brightness", 0.6, 1.4), ("contrast", 0.7, 1.3), ("saturation", 0.8, 1.2), ("hue", -0.1, 0.1)):
        values = [dict(each)[name] for each in applied if each]
        assert min(values) >= low and max(values) <= high
        quarters = np.linspace(low, high, 5)
        assert np.quantile(values, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx(quarters, abs=0.03 * (high - low))


def test_an_operation_that_is_off_leaves_the_others_as_they_are():
    full, without = ColorJitterConfig(probability=1, gray=0.5), ColorJitterConfig(probability=1, gray=0.5, contrast=0)
    for seed in range(20):
        expected = [each for each in draw_colors(full, np.random.default_rng(seed)) if each[0] != "contrast"]
        assert draw_colors(without, np.random.default_rng(seed)) == expected
    rgb = np.full((2, 2, 3), 7, np.uint8)
    nothing = ColorJitterConfig(brightness=0, contrast=0, saturation=0, hue=0, probability=1)
    assert np.array_equal(color_jittered(rgb, nothing, np.random.default_rng(0)), rgb)


def test_color_jitter_changes_colors_of_images_and_nothing_else(tmp_path):
    root = benchmark_sets.voc(tmp_path)
    others = {"scale_jitter": (0.4, 1.5), "mirror": True}
    colors = {"probability": 1, "gray": 0.3}
    _, plain = opened("voc2012_semseg", root, **others)
    _, pool = opened("voc2012_semseg", root, color_jitter=colors, **others)
    changed = 0
    for index in range(len(pool)):
        (before, ids), (after, same) = plain._read(index, 2, 0), pool._read(index, 2, 0)
        assert np.array_equal(ids, same)
        surrounding = (ids == 255) & (before == 128).all(-1)
        assert (after[surrounding] == 128).all()  # what surrounds the image stays gray
        rgb, rng = pool.examples[index].rgb, numpy_generator(0, "color_jitter", 2, index)
        part_rng = numpy_generator(0, "part", 2, index)
        part = draw_jitter(rgb.shape[:2], 32, (0.4, 1.5), part_rng)
        seen = part.image(color_jittered(rgb, ColorJitterConfig(**colors), rng))
        assert np.array_equal(after, seen[:, ::-1] if part_rng.random() < 0.5 else seen)
        changed += not np.array_equal(before, after)
    assert changed == len(pool) > 4


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    side=st.integers(1, 48),
    scales=st.sampled_from([(0.1, 2.0), (1.0, 1.0), (0.1, 0.1), (4.0, 4.0)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_maps_and_images_go_to_the_same_place(size, side, scales, seed):
    """The map of an image of indices has, at each place, the index of the pixel that the image shows there."""
    jitter = draw_jitter(size, side, scales, np.random.default_rng(seed))
    rows, columns = np.mgrid[: size[0], : size[1]]
    index_HW = rows * size[1] + columns
    found_SS = jitter.map(np.where(index_HW == 255, -1, index_HW))
    is_inside = np.zeros((side, side), bool)
    is_inside[: jitter.height - jitter.top, : jitter.width - jitter.left] = True
    assert np.array_equal(found_SS != 255, is_inside)
    y, x = np.nonzero(is_inside)
    for axis, places, first, length, whole in (
        (found_SS // size[1], y, jitter.top, jitter.height, size[0]),
        (found_SS % size[1], x, jitter.left, jitter.width, size[1]),
    ):
        exact = (places + first + 0.5) * whole / length - 0.5  # of the pixel's center, in the original image
        found = axis[y, x]
        keep = found_SS[y, x] >= 0
        assert np.abs(found - exact)[keep].max(initial=0) <= 0.5 + 1e-9
    assert max(jitter.height, jitter.width) == pytest.approx(side * scales[0], abs=1 + side * (scales[1] - scales[0]))
    # The image: gray exactly outside; inside as torchvision resizes, crops and pads
    rgb = (index_HW[..., None] * (3, 5, 7) % 251).astype(np.uint8)
    resized = judge.resize(Image.fromarray(rgb), [jitter.height, jitter.width], BICUBIC)
    cropped = judge.crop(resized, jitter.top, jitter.left, min(side, jitter.height), min(side, jitter.width))
    padding = [0, 0, side - cropped.width, side - cropped.height]
    assert np.array_equal(jitter.image(rgb), np.asarray(judge.pad(cropped, padding, fill=[128] * 3)))


def test_scales_are_uniform_and_squares_anywhere():
    rng = np.random.default_rng(0)
    drawn = [draw_jitter((480, 640), 100, (0.1, 2.0), rng) for _ in range(3000)]
    factors = np.array([each.width for each in drawn]) / 100
    assert np.quantile(factors, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0.1, 0.575, 1.05, 1.525, 2], abs=0.04)
    assert all(abs(each.height - 0.75 * each.width) <= 1 for each in drawn)
    large = [each for each in drawn if each.width > 150]
    shares = [each.left / (each.width - 100) for each in large]
    assert np.quantile(shares, [0, 0.5, 1]) == pytest.approx([0, 0.5, 1], abs=0.05)
    assert all(each.left == each.top == 0 for each in drawn if each.width <= 100)


def test_maps_follow_their_images_through_jitter_and_mirrors(tmp_path):
    _, pool = opened("voc2012_semseg", benchmark_sets.voc(tmp_path), scale_jitter=(0.4, 2.0), mirror=True)
    batch, _ = next(pool.resized(48).batches(index_batches(len(pool), 5, 0, "order"), 0))
    ids, is_blue = np.stack(batch.labels), batch.rgb[..., 2] > batch.rgb[..., 0].astype(int) + 20
    assert ids.shape == (5, 48, 48) and {1, 15} <= set(np.unique(ids)) <= {1, 15, 255}
    counted = ids != 255
    assert ((ids == 15) == is_blue)[counted].mean() > 0.97  # all but the pixels at the edge
    gray = (batch.rgb == 128).all(-1)
    assert gray.any() and not counted[gray].any()


def learned(pool, size, seed):
    """Return images by epoch and example, of the first two epochs in batches of `size`."""
    order, found = [], {}

    def noted():
        for batch in index_batches(len(pool), size, 0, "order"):
            order.append(batch)
            yield batch

    for number, (batch, cursor) in enumerate(itertools.islice(pool.batches(noted(), seed), 2 * len(pool) // size)):
        indices, expected = order[number]
        assert cursor == expected
        found |= {(cursor.epoch, int(i)): image for i, image in zip(indices, batch.rgb, strict=True)}
    return found


def share_of_equal(one, other):
    common = one.keys() & other.keys()
    assert len(common) > 20
    return np.mean([np.array_equal(one[key], other[key]) for key in common])


@pytest.mark.parametrize("name", ["rand_augment", "color_jitter"])
def test_what_is_drawn_depends_on_seed_epoch_and_example_alone(tmp_path, name):
    root = benchmark_sets.imagenet(tmp_path, train=8, val=1)
    _, plain = opened("imagenet", root)
    _, pool = opened("imagenet", root, **{name: {"probability": 1}})
    found = learned(pool, 7, 5)
    state = np.random.get_state()[1].copy()
    assert share_of_equal(found, learned(pool, 3, 5)) == 1  # whatever the batches
    assert np.array_equal(np.random.get_state()[1], state)  # the global state is not used
    assert share_of_equal(found, learned(pool, 7, 6)) < 0.2  # another seed
    assert share_of_equal(found, {(1 - epoch, i): image for (epoch, i), image in found.items()}) < 0.2  # another epoch
    assert share_of_equal(found, learned(plain, 7, 5)) < 0.2  # few operations change nothing


def test_crops_and_mirrors_do_not_depend_on_rand_augment(tmp_path):
    root = benchmark_sets.imagenet(tmp_path, train=4, val=1)
    _, plain = opened("imagenet", root, random_crop=(0.2, 0.9), mirror=True)
    _, pool = opened("imagenet", root, random_crop=(0.2, 0.9), mirror=True, rand_augment={"magnitude": 9})
    for index in range(6):
        rng = numpy_generator(0, "rand_augment", 2, index)
        assert np.array_equal(pool._read(index, 2, 0)[0], rand_augmented(plain._read(index, 2, 0)[0], DEFAULT, rng))


@pytest.mark.parametrize(
    ("name", "make", "augmentation"),
    [
        ("imagenet", benchmark_sets.imagenet, {"rand_augment": {"probability": 1}}),
        ("voc2012_semseg", benchmark_sets.voc, {"scale_jitter": (0.1, 2.0), "color_jitter": {"probability": 1}}),
    ],
)
def test_scored_images_are_never_augmented(pretrained, world, tmp_path, monkeypatch, name, make, augmentation):
    root, seen = make(tmp_path / "set"), []
    predict = FineTuned.predict

    def recorded(self, conditions, targets, **others):
        seen[-1].append(np.array(conditions["rgb"]))
        return predict(self, conditions, targets, **others)

    monkeypatch.setattr(FineTuned, "predict", recorded)
    for folder, others in (("plain", {}), ("augmented", augmentation)):
        seen.append([])
        settings = config(name, root, **others)
        data = replace(world, benchmarks=settings.benchmarks)
        json.dumps(finetune(pretrained, data, settings, RunContext(0, tmp_path / folder)), allow_nan=False)
    assert len(seen[0]) == len(seen[1]) > 0
    assert all(np.array_equal(one, other) for one, other in zip(*seen, strict=True))


def test_errors_of_augmentation_say_what_is_allowed(tmp_path):
    def settings(**others):
        return TrainedBenchmarkConfig(path=tmp_path, **others)

    with pytest.raises(ValueError, match=r"magnitude\n.*less than or equal to 10"):
        settings(rand_augment={"magnitude": 11})
    with pytest.raises(ValueError, match=r"probability\n.*greater than 0"):
        settings(rand_augment={"probability": 0})
    with pytest.raises(ValueError, match=r"scale_jitter is \[2.0, 0.1\]; allowed: two factors .* ≤ 4, e.g. \[0.1, 2"):
        settings(scale_jitter=(2.0, 0.1))
    with pytest.raises(ValueError, match=r"scale_jitter is \[0.1, 9.0\]; allowed"):
        settings(scale_jitter=(0.1, 9.0))
    with pytest.raises(ValueError, match=r"random_crop is \[0.1, 1.0\] and scale_jitter \[0.1, 2.0\].* Remove one of them"):
        settings(random_crop=(0.1, 1.0), scale_jitter=(0.1, 2.0))
    with pytest.raises(ValueError, match=r"rand_augment moves an image and not its map\. Remove .*voc2012_semseg.rand_augment"):
        opened("voc2012_semseg", benchmark_sets.voc(tmp_path), rand_augment={})
    with pytest.raises(ValueError, match=r"hue\n.*less than or equal to 0.5"):
        settings(color_jitter={"hue": 0.6})
    root = benchmark_sets.vqa(tmp_path / "vqa", train=10, val=1)
    message = r"color_jitter has hue 0\.1 and gray 0, .*about colors.* Allowed: hue 0 and gray 0\. Change .*vqav2\.color_jitter"
    with pytest.raises(ValueError, match=message):
        opened("vqav2", root, color_jitter={})
    opened("vqav2", root, color_jitter={"hue": 0}, min_questions=1)
