"""Captions by checkpoints that describe images: BLIP, Florence-2. Decoding is greedy, so equal weights give equal texts."""

from typing import Any, ClassVar

import torch
from PIL import Image
from pydantic import Field

from fourfold.labelers.checks import ValueLimits
from fourfold.labelers.hub.checkpoints import Checkpoint, HubConfig
from fourfold.labelers.hub.running import TransformersLabeler
from fourfold.labelers.protocol import Batch, LabelingContext

PROMPTS: dict[str, str | None] = {"blip": None, "florence2": "<CAPTION>"}  # by `model_type`; None: no text is needed


class CaptionsConfig(HubConfig):
    """Settings of captions."""

    prompt: str | None = None  # None: that of the family. BLIP continues it; Florence-2 has tasks such as <DETAILED_CAPTION>
    max_tokens: int = Field(40, ge=1)  # of a caption; longer ones are cut
    replace: bool = False  # False: only images without a caption of the source get one; True: all


class TransformersCaptions(TransformersLabeler):
    """Labels `caption`: later stages read this label instead of the captions of the source, which are among them."""

    name, title, modality = "transformers_caption", "Captions by a checkpoint of the hub", "caption"
    config_class = CaptionsConfig
    config: CaptionsConfig
    families: ClassVar[tuple[str, ...]] = tuple(PROMPTS)

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        _require_family(self.checkpoint, self.config.model)

    def processor_class(self) -> Any:  # noqa: D102
        from transformers import AutoProcessor

        return AutoProcessor

    def model_class(self) -> Any:  # noqa: D102
        from transformers import AutoModelForImageTextToText

        return AutoModelForImageTextToText

    def label(self, batch: Batch, output: Any = None) -> list[str]:
        """Return the captions of the source where there are any, and of all other images those of the checkpoint."""
        rgb_BHW3 = batch["rgb"]
        captions = list(batch.get("caption", [""] * len(rgb_BHW3)))
        rows = [row for row, caption in enumerate(captions) if self.config.replace or not caption]
        described = [text for images in self.chunks([rgb_BHW3[row] for row in rows]) for text in self.describe(images)]
        for row, text in zip(rows, described, strict=True):
            captions[row] = text
        return captions

    def describe(self, images: list[Image.Image]) -> list[str]:
        """Return what the checkpoint says about some images, on one line."""
        prompt = PROMPTS[self.checkpoint.config.model_type] if self.config.prompt is None else self.config.prompt
        text = {} if prompt is None else {"text": [prompt] * len(images)}
        with torch.inference_mode():
            inputs = self.inputs(images=images, **text)
            ids_BL = self.model.generate(**inputs, max_new_tokens=self.config.max_tokens, do_sample=False, num_beams=1)
        return [" ".join(one.split()) for one in self.processor.batch_decode(ids_BL, skip_special_tokens=True)]

    @classmethod
    def find_problem(cls, value: Any, limits: ValueLimits) -> str | None:
        """Return that a caption is empty, if it is."""
        return None if value.strip() else "an empty caption"


def _require_family(checkpoint: Checkpoint, model: str) -> None:
    """Raise ValueError when no test has compared captions of this family with those of the library."""
    found = checkpoint.config.model_type
    if found not in PROMPTS:
        raise ValueError(f"Model {model!r} has type {found!r}. Captions are made by {', '.join(PROMPTS)}. Choose one of these.")
