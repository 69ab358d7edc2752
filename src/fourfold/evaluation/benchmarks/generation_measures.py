"""Caption → image: the CLIP score, the distance to real images, and whether the model reads its own image back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fourfold import images
from fourfold.evaluation.benchmarks.object_measures import whole_images
from fourfold.evaluation.benchmarks.official import Example, Measure, Run
from fourfold.metrics.captions import rouge_l, tokenize
from fourfold.metrics.generation import ClipScorer, FeatureMoments, frechet_distance
from fourfold.metrics.inception import NUM_FEATURES, SIDE, SITE, WEIGHTS_FILE, InceptionFeatures
from fourfold.metrics.running import RunningSums, Score
from fourfold.seeds import derive_seed
from fourfold.storage import write_bytes
from fourfold.training.precision import default_device

PUBLISHED_IMAGES = 30_000  # captions of COCO 2014 val, in the number of 4M and most others: `split: val2014` has as many


class FidScorer:
    """FID of generated images; memory does not depend on their number."""

    def __init__(self, features: InceptionFeatures) -> None:
        """Start without images."""
        self._features = features
        self._real, self._made = FeatureMoments(), FeatureMoments()
        self._sizes = ((0, 0), (0, 0))

    def add(self, real: np.ndarray, made: np.ndarray) -> None:
        """Add real and generated images, each uint8 (B, H, W, 3)."""
        self._sizes = (real.shape[1:3], made.shape[1:3])
        self._real.add(self._features(real))
        self._made.add(self._features(made))

    def scores(self) -> dict[str, Score]:
        """Return `fid`, which has no interval; nothing for fewer than two images."""
        if min(self._real.count, self._made.count) < 2:
            return {}
        return {"fid": Score(frechet_distance(self._real, self._made))}

    def details(self) -> dict[str, str]:
        """Return what must be stated with the number."""
        file = WEIGHTS_FILE if self._features.is_published else f"not the published file; SHA-256 {self._features.sha256}"
        sizes = [f"{height} × {width}" for height, width in self._sizes]
        compared = (
            "As many as published numbers on COCO use, whose captions and resizing differ"
            if self._made.count == PUBLISHED_IMAGES
            else f"Published numbers use {PUBLISHED_IMAGES:,}; FID of fewer images is larger"
        )
        few = f", and of {NUM_FEATURES} or fewer its covariances are singular" if self._made.count <= NUM_FEATURES else ""
        return {
            "fid_network": file,
            "fid_images": f"{self._made.count:,} generated of {sizes[1]} pixels, {self._real.count:,} real ones of the same "
            f"captions, as in 4M's script, resized to {sizes[0]} (bicubic); all resized to {SIDE} × {SIDE} as TensorFlow 1.x "
            f"does. {compared}{few}.",
        }


class GenerationMeasure(Measure):
    """Images from the first caption of each example; the truth is a list of captions.

    Memory does not grow with the examples: means and covariances of features are summed up, images are written and forgotten.
    """

    def __init__(self, run: Run, captions: str = "the first of each image") -> None:
        """Start without examples.

        Args:
            run: the model, a text encoder and the settings.
            captions: which these are, in words, for the report.

        Raises:
            ValueError: there is no text encoder, or `fid_weights` are not those of FID's network.
        """
        super().__init__(run)
        if run.encoder is None:
            raise ValueError(
                "Generated images need a text encoder to be scored, and there is none. Set evaluation.text_encoder."
            )
        self._encoder, self._clip, self._captions = run.encoder, ClipScorer(run.bootstrap), captions
        self._consistent = RunningSums(run.bootstrap)
        self._real, self._made = FeatureMoments(), FeatureMoments()
        weights = run.config.fid_weights
        self._fid = None if weights is None else FidScorer(InceptionFeatures(weights, default_device()))

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return generated images with the captions that the model predicts from them."""
        captions = [example.truth[0] for example in examples]
        # Equal seeds in all batches would draw the same numbers again and again
        seeds = [derive_seed(self.run.seed, "caption to image", str(self.run.config.split), each.key) for each in examples]
        preset = self.run.config.preset
        made = np.asarray(self.run.model.predict({"caption": captions}, ["rgb"], preset=preset, seeds=seeds)["rgb"])
        again = self.run.model.predict({"rgb": made}, ["caption"], seed=self.run.seed)["caption"]
        real = whole_images(self.run, examples)
        if self._fid is not None:
            self._fid.add(real, made)
        self._real.add(self._encoder.encode_image(real)[1])
        features = np.asarray(self._encoder.encode_image(made)[1])
        self._made.add(features)
        self._clip.add(features, np.asarray(self._encoder.encode_text(captions)))
        return list(zip(made, again, strict=True))

    def add(self, example: Example, answer: Any) -> float | None:
        """Return 1 - ROUGE-L between the caption and the one that was read back."""
        agreement = rouge_l(tokenize(answer[1]), [tokenize(example.truth[0])])
        self._consistent.add(np.array([agreement, 1.0]))
        return 1 - agreement

    def scores(self) -> dict[str, Score]:
        """Return `clip_score`, `self_consistency`, `frechet_encoder` and, with weights, `fid`; distances have no interval."""
        found = self._clip.scores() | {"self_consistency": self._consistent.mean(0, 1)}
        found |= {} if self._fid is None else self._fid.scores()
        if min(self._real.count, self._made.count) < 2:
            return found
        return found | {"frechet_encoder": Score(frechet_distance(self._real, self._made))}

    def details(self) -> dict[str, Any]:
        """Return what the distances are about: FID is that of one network."""
        encoder = f"text encoder {type(self._encoder).__name__}"
        found = {
            "features": f"of the {encoder}, not Inception's: the Fréchet distance is no FID",
            "images": self._made.count,
            "captions": self._captions,
            "preset": f"{self.run.config.preset} (fourfold.generation.config), seed {self.run.seed}",
        }
        return found | ({} if self._fid is None else self._fid.details())

    def left_out(self) -> dict[str, str]:
        """Return why there is no FID."""
        if self._fid is not None:
            return {} if self._made.count > 1 else {"fid": f"it needs 2 images, and there is {self._made.count}."}
        return {"fid": f"it needs the published Inception network. Set fid_weights to the file {WEIGHTS_FILE} from {SITE}."}

    def write(self, example: Example, answer: Any, folder: Path) -> None:
        """Write the image as PNG, which FID programs read."""
        write_bytes(folder / f"{example.key}.png", images.png(answer[0]))

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Show the real image, the caption, the generated image and the caption that was read back."""
        return [("real", example.rgb), ("caption", example.truth[0]), ("generated", answer[0]), ("read back", answer[1])]
