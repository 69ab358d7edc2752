"""Annotations that come with the images of a source: a class, questions with answers, a caption of another style.

No labeler makes them and pretraining does not read them; fine-tuning learns and scores tasks from them. They are read from the
metadata of a sample: columns of a table, fields of the `.json` in a tar, or what the source itself knows (the folder of a
class). A sample without annotations has an empty object, so that all modalities of a split have the same keys.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from fourfold.configuration import Config

ANNOTATIONS = "annotations"  # the folder in a shard set
MAX_TEXT = 1_000  # characters of a class, a question, an answer or a caption; longer ones are no annotations
MAX_TEXTS = 100  # of one image


class AnnotationConfig(Config):
    """Names of the metadata that hold annotations; of several the first that a sample has. () reads none."""

    category: tuple[str, ...] = ("class", "label")  # one class for the whole image
    question: tuple[str, ...] = ("question",)
    answer: tuple[str, ...] = ("answer",)  # to the question in the same row
    caption: tuple[str, ...] = Field(("second_caption",))  # of another style than the captions of pretraining

    @property
    def fields(self) -> frozenset[str]:
        """All names of metadata."""
        return frozenset((*self.category, *self.question, *self.answer, *self.caption))

    def read(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the annotations of one sample as JSON.

        Args:
            metadata: of the sample; a value is a text, a number, or a list of those, one for each row about the image.

        Returns:
            `category`: a text; `questions`: a list of [question, answer]; `captions`: a list of texts. Absent where there is
            none: what is empty, too long or no text is no annotation.
        """
        found: dict[str, Any] = {}
        category, *_ = (*filter(None, _texts(metadata, self.category)), "")
        pairs = zip(_texts(metadata, self.question), _texts(metadata, self.answer), strict=False)
        questions = [[question, answer] for question, answer in pairs if question and answer]
        captions = list(dict.fromkeys(filter(None, _texts(metadata, self.caption))))
        for name, value in (("category", category), ("questions", questions), ("captions", captions)):
            if value:
                found[name] = value
        return found


def _texts(metadata: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    """Return the values of the first name that a sample has, as texts; "" for a value that cannot be one."""
    values: Any = next((metadata[name] for name in names if metadata.get(name) is not None), [])
    return [_text(value) for value in (values if isinstance(values, list | tuple) else [values])[:MAX_TEXTS]]


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = " ".join(str(value).encode("utf-8", "replace").decode("utf-8").split())
    return text if len(text) <= MAX_TEXT else ""
