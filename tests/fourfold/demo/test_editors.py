"""Edit one modality in Chromium, and what the models are asked then."""

import base64
import io

import browser
import numpy as np
import pytest
from PIL import Image
from stand_in import CLASSES, SIDE, answer


def opened(window, label):
    window.card(label).get_by_role("button", name="Edit").click()
    return window.page.locator("#editor")


def regenerated(window, dialog):
    with window.page.expect_response("**/predict"):
        dialog.get_by_role("button", name="Regenerate the others").click()
    window.settled()


def drag(window, canvas, first, last):
    frame = canvas.bounding_box()
    places = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (first, last)]
    window.page.mouse.move(*places[0])
    window.page.mouse.down()
    window.page.mouse.move(*places[1], steps=4)
    window.page.mouse.up()


@pytest.mark.parametrize("window", [browser.DESKTOP, browser.PHONE], indirect=True, ids=["desktop", "phone"])
def test_painted_classes_are_the_only_input(window):
    dialog = opened(window, "semseg")
    dialog.get_by_text("box", exact=True).click()
    drag(window, dialog.locator("canvas"), (0.05, 0.9), (0.95, 0.9))
    assert window.overflow() <= 0
    regenerated(window, dialog)
    content = base64.b64decode(window.last()["inputs"]["semseg"])
    sent = np.asarray(Image.open(io.BytesIO(content)))
    before = np.uint8(answer("1", {}, 0)["semseg"])
    row = int(0.9 * SIDE)
    assert (sent[row, 1:-1] == CLASSES.id_of("box")).all()
    assert np.array_equal(sent[: row - 3], before[: row - 3]) and list(window.last()["inputs"]) == ["semseg"]
    assert window.inputs() == ["semseg"] and {"rgb", "depth", "caption"} <= set(window.last()["params"]["targets"])


def test_classes_are_painted_with_the_keyboard(window):
    window.tab_to('[data-key^="semseg/edit"]')
    window.press("Enter", "ArrowDown", "ArrowDown", " ")  # the brush starts in the middle
    window.tab_to("#editor .primary")
    with window.page.expect_response("**/predict"):
        window.press("Enter")
    window.settled()
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(window.last()["inputs"]["semseg"]))))
    changed = sent != np.uint8(answer("1", {}, 0)["semseg"])
    assert changed.any() and (sent[changed] == CLASSES.id_of("box")).all()  # the first class that the image does not have
    assert changed[SIDE // 2 + 2, SIDE // 2] and np.argwhere(changed).min() >= SIDE // 2 - 2


def test_boxes_are_drawn_changed_and_deleted(window):
    dialog = opened(window, "det")
    drag(window, dialog.locator("canvas"), (0.5, 0.5), (0.6, 0.4))  # moves the box of the model
    drag(window, dialog.locator("canvas"), (0.02, 0.02), (0.3, 0.2))  # draws one
    dialog.get_by_role("button", name="Add a box").click()
    assert dialog.locator("tbody tr").count() == 3
    dialog.get_by_label("Delete box 3").click()
    dialog.locator("tbody tr").nth(1).get_by_label("class").select_option("box")
    dialog.get_by_label("bottom of box 2").fill("0.25")
    regenerated(window, dialog)
    first, second = window.last()["inputs"]["det"]["instances"]
    assert first["class_name"] == "sphere" and np.allclose(first["box"], [0.35, 0.15, 0.85, 0.65], atol=0.02)
    assert second["class_name"] == "box" and np.allclose(second["box"], [0.02, 0.02, 0.3, 0.25], atol=0.02)
    assert window.inputs() == ["det"]


def test_depth_and_image_are_painted(window):
    dialog = opened(window, "depth")
    dialog.get_by_label("Depth").fill("4")
    drag(window, dialog.locator("canvas"), (0.5, 0.5), (0.5, 0.5))
    regenerated(window, dialog)
    sent = np.load(io.BytesIO(base64.b64decode(window.last()["inputs"]["depth"])))
    assert sent.dtype == np.float16 and abs(sent[SIDE // 2, SIDE // 2] - 4) < 0.05
    assert np.array_equal(sent[0], np.float16(answer("1", {}, 0)["depth"][0]))
    dialog = opened(window, "rgb")
    dialog.get_by_label("Color").fill("#00ff00")
    drag(window, dialog.locator("canvas"), (0.5, 0.5), (0.5, 0.5))
    regenerated(window, dialog)
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(window.last()["inputs"]["rgb"]))).convert("RGB"))
    assert tuple(sent[SIDE // 2, SIDE // 2]) == (0, 255, 0) and window.inputs() == ["rgb"]


def test_cancel_and_reset_change_nothing(window):
    dialog = opened(window, "semseg")
    drag(window, dialog.locator("canvas"), (0.2, 0.9), (0.8, 0.9))
    dialog.get_by_role("button", name="Reset").click()
    window.press("Escape")
    assert not dialog.is_visible() and len(window.asked) == 1 and window.inputs() == ["rgb"]
    assert window.page.evaluate("document.activeElement.dataset.key").startswith("semseg/edit")
