"""What readers of metadata find in a generated image."""

import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from fourfold.generation.marking import GENERATED, PARTLY_GENERATED, marked

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)


def png():
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(("is_part", "source"), [(False, GENERATED), (True, PARTLY_GENERATED)])
def test_pillow_reads_facts_and_source_and_the_same_pixels(is_part, source):
    with Image.open(io.BytesIO(marked(png(), {"seed": 3, "text": "größer — 球"}, is_part))) as image:
        assert np.array_equal(np.asarray(image), PIXELS)
        assert json.loads(image.text["fourfold"]) == {"seed": 3, "text": "größer — 球"}
        assert image.text["Software"].startswith("fourfold ")
        packet = ElementTree.fromstring(image.text["XML:com.adobe.xmp"].partition("?>")[2].rpartition("<?")[0])
    assert [element.text for element in packet.iter() if element.tag.endswith("DigitalSourceType")] == [source]


def test_equal_facts_give_equal_bytes():
    assert marked(png(), {"a": 1, "b": 2}) == marked(png(), {"b": 2, "a": 1})


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", png()[:10]])
def test_other_files_are_refused(content):
    with pytest.raises(ValueError, match="not a PNG, so they cannot be marked"):
        marked(content, {})
