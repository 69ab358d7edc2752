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
from fourfold.metrics.running import RunningSums, Score
from fourfold.storage import write_bytes


class GenerationMeasure(Measure):
    """Images from the first caption of each example; the truth is a list of captions."""

    def __init__(self, run: Run) -> None:
        """Start without examples.

        Raises:
            ValueError: there is no text encoder.
        """
        super().__init__(run)
        if run.encoder is None:
            raise ValueError(
                "Generated images need a text encoder to be scored, and there is none. Set evaluation.text_encoder."
            )
        self._encoder, self._clip = run.encoder, ClipScorer(run.bootstrap)
        self._consistent = RunningSums(run.bootstrap)
        self._real, self._made = FeatureMoments(), FeatureMoments()

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return generated images with the captions that the model predicts from them."""
        captions = [example.truth[0] for example in examples]
        made = np.asarray(self.run.model.predict({"caption": captions}, ["rgb"], seed=self.run.seed)["rgb"])
        again = self.run.model.predict({"rgb": made}, ["caption"], seed=self.run.seed)["caption"]
        self._real.add(self._encoder.encode_image(whole_images(self.run, examples))[1])
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
        """Return `clip_score`, `self_consistency` and `frechet_encoder`, which has no interval."""
        found = self._clip.scores() | {"self_consistency": self._consistent.mean(0, 1)}
        if min(self._real.count, self._made.count) < 2:
            return found
        return found | {"frechet_encoder": Score(frechet_distance(self._real, self._made))}

    def details(self) -> dict[str, Any]:
        """Return what the distance is about: FID is another network's."""
        encoder = f"text encoder {type(self._encoder).__name__}"
        return {"features": f"of the {encoder}, not Inception's: the distance is no FID", "images": self._made.count}

    def write(self, example: Example, answer: Any, folder: Path) -> None:
        """Write the image as PNG, which FID programs read."""
        write_bytes(folder / f"{example.key}.png", images.png(answer[0]))

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Show the real image, the caption, the generated image and the caption that was read back."""
        return [("real", example.rgb), ("caption", example.truth[0]), ("generated", answer[0]), ("read back", answer[1])]
