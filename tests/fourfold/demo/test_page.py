"""The page of `kedro demo` in Chromium, with a stand-in for the models."""

import base64
import io
import json
import zipfile

import browser
import numpy as np
import pytest
from PIL import Image
from stand_in import CLASSES, LABELS, NOTICE, SIDE, answer, samples

OTHERS = [label for label in LABELS if label != "rgb"]


def photo(size=(40, 20)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def close(color, expected):
    return np.abs(np.array(color) - expected).max() <= 2


@pytest.mark.parametrize("window", [browser.DESKTOP, browser.PHONE], indirect=True, ids=["desktop", "phone"])
def test_first_example_is_shown_with_all_modalities(window):
    assert window.inputs() == ["rgb"] and sorted(window.last()["params"]["targets"]) == sorted(OTHERS)
    assert window.page.locator(".card h3").all_inner_texts() == [
        "RGB", "Depth", "Normals", "Segmentation", "Boxes", "Caption", "CLIP features",
    ]  # fmt: skip
    assert window.card("caption").inner_text().count("version 1 saw a sphere with seed 0") == 1
    assert "2 m" in window.card("depth").inner_text() and "10 m" in window.card("depth").inner_text()
    assert window.card("semseg").locator("li").all_inner_texts() == ["ground", "sky", "sphere"]
    assert close(window.pixel("semseg", 0.5, 0.5), CLASSES.palette[2]) and close(
        window.pixel("semseg", 0.1, 0.1), CLASSES.palette[1]
    )
    assert close(window.pixel("rgb", 0.01, 0.01), samples()[0]["rgb"][0, 0])
    assert window.page.inner_text("#notice") == NOTICE
    assert window.overflow() <= 0


def test_example_image_becomes_the_input(window):
    window.page.click("#examples button >> nth=1")
    window.settled()
    content = base64.b64decode(window.last()["inputs"]["rgb"])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), samples()[1]["rgb"])
    assert window.page.locator("#examples [aria-pressed=true]").get_attribute("title") == "a blue box"


def test_dropped_file_is_sent_unchanged(window):
    script = """([text]) => {
        const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "photo.png", { type: "image/png" }));
        const drop = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: data });
        document.querySelector("#drop").dispatchEvent(drop);
    }"""
    with window.page.expect_response("**/predict"):
        window.page.evaluate(script, [base64.b64encode(photo()).decode()])
    window.settled()
    assert base64.b64decode(window.last()["inputs"]["rgb"]) == photo() and window.inputs() == ["rgb"]
    assert close(window.pixel("rgb", 0.5, 0.5), (10, 200, 30))


def test_file_that_is_no_image_is_refused_in_one_sentence(window):
    window.page.set_input_files("#image-file", {"name": "notes.txt", "mimeType": "image/png", "buffer": b"notes"})
    window.page.wait_for_selector("#error:not([hidden])")
    assert window.page.inner_text("#error").startswith("The file cannot be used: image unreadable. Use a JPEG, PNG")
    assert len(window.asked) == 1 and window.inputs() == ["rgb"]
    window.complained("the server responded with a status of 400")


def test_caption_is_the_only_input_of_its_button(window):
    window.page.fill("#caption", "a blue box")
    window.page.click("#from-caption [type=submit]")
    window.settled()
    assert window.last()["inputs"] == {"caption": "a blue box"} and "rgb" in window.last()["params"]["targets"]
    assert window.inputs() == ["caption"] and close(window.pixel("semseg", 0.5, 0.5), CLASSES.palette[3])
    window.card("caption").locator("textarea").fill("a sphere ___ a plane")
    window.press("Control+Enter")
    window.card("semseg").get_by_text("sphere").wait_for()
    assert window.last()["inputs"] == {"caption": "a sphere ___ a plane"} and "caption" in window.last()["params"]["targets"]
    assert window.card("caption").locator("textarea").input_value() == "version 1 saw a sphere with seed 0"  # the gap is filled


def test_predictions_become_inputs_and_are_undone(window):
    window.card("depth").get_by_text("Use as input").click()
    window.settled()
    assert window.inputs() == ["rgb", "depth"]
    sent = np.load(io.BytesIO(base64.b64decode(window.last()["inputs"]["depth"])))
    assert np.array_equal(sent, np.float16(answer("1", {}, 0)["depth"]))
    window.card("rgb").get_by_text("Remove").click()
    window.settled()
    assert window.inputs() == ["depth"] and "rgb" in window.last()["params"]["targets"]
    window.card("clip").get_by_label("predict").uncheck()
    window.settled()
    assert "clip" not in window.last()["params"]["targets"]
    window.page.click("#undo")
    assert window.card("clip").get_by_label("predict").is_checked()
    window.page.click("#undo")
    assert window.inputs() == ["rgb", "depth"]


def test_file_is_opened_on_its_card(window):
    depth = np.full((SIDE, SIDE), 3.5, np.float16)
    buffer = io.BytesIO()
    np.save(buffer, depth)
    file = {"name": "depth.npy", "mimeType": "application/octet-stream", "buffer": buffer.getvalue()}
    with window.page.expect_response("**/predict"):
        window.page.set_input_files('[data-key="depth/open"]', file)
    window.settled()
    assert np.array_equal(np.load(io.BytesIO(base64.b64decode(window.last()["inputs"]["depth"]))), depth)
    assert window.inputs() == ["rgb", "depth"]


def test_settings_are_sent(window):
    window.page.select_option("#preset", "dense")
    for name, value in (("temperature", "0.7"), ("guidance", "2.5"), ("seed", "11")):
        window.page.fill(f"#{name}", value)
    window.page.click("#generate")
    window.settled()
    params = window.last()["params"]
    assert {name: params[name] for name in ("preset", "temperature", "guidance", "seed")} == {
        "preset": "dense", "temperature": 0.7, "guidance": 2.5, "seed": 11,
    }  # fmt: skip
    before = len(window.asked)
    window.page.fill("#temperature", "-1")
    window.page.click("#generate")
    assert window.page.locator("#temperature:invalid").count() == 1 and len(window.asked) == before


def test_versions_and_seeds_are_side_by_side(window):
    window.page.select_option("#model", label="champion and candidate side by side")
    window.settled()
    assert [(model, content["params"]["seed"]) for model, content in window.asked[-2:]] == [("1", 0), ("2", 0)]
    assert window.card("caption").locator("p").all_inner_texts() == [f"version {v} saw a sphere with seed 0" for v in (1, 2)]
    titles = window.card("depth").locator(".who").all_inner_texts()
    assert titles == ["champion · version 1", "candidate · version 2 (dirty)"]
    assert window.pixel("depth", 0.5, 0.9, 0) != window.pixel("depth", 0.5, 0.9, 1)  # one scale for both
    window.page.select_option("#variants", "2")
    window.settled()
    assert sorted((model, content["params"]["seed"]) for model, content in window.asked[-4:]) == [
        ("1", 0), ("1", 1), ("2", 0), ("2", 1),
    ]  # fmt: skip
    assert window.card("depth").locator("canvas").count() == 5  # with the color scale
    assert "set a temperature" in window.status() and window.overflow() <= 0


def test_overlays_are_drawn_over_the_image(window):
    plain = window.pixel("rgb", 0.5, 0.5), window.pixel("rgb", 0.25, 0.6)
    window.card("rgb").get_by_label("segmentation", exact=True).check()
    window.page.wait_for_timeout(100)
    mixed = (np.array(plain[0]) + CLASSES.palette[2]) / 2
    assert np.abs(window.pixel("rgb", 0.5, 0.5) - mixed).max() <= 4
    window.card("rgb").get_by_label("segmentation", exact=True).uncheck()
    window.card("rgb").get_by_label("boxes").check()
    window.page.wait_for_timeout(100)
    assert close(window.pixel("rgb", 0.25, 0.6), CLASSES.palette[2]) and window.pixel("rgb", 0.5, 0.5) == plain[0]


def test_cursor_names_the_place_in_all_images(window):
    window.card("rgb").locator(".view").hover(position={"x": 5, "y": 5})
    readouts = {label: window.card(label).locator(".readout").inner_text() for label in ("depth", "semseg")}
    assert readouts == {"depth": f"{answer('1', {}, 0)['depth'][0][0]:.2f} m", "semseg": "sky"}


def test_downloads_have_the_values_of_the_shards(window):
    with window.page.expect_download() as waiting:
        window.card("depth").get_by_label("Download depth as data (npy)").click()
    expected = np.float16(answer("1", {}, 0)["depth"])
    assert waiting.value.suggested_filename == "depth.npy" and np.array_equal(np.load(waiting.value.path()), expected)
    with window.page.expect_download() as waiting:
        window.card("semseg").get_by_label("Download segmentation as image (png)").click()
    shown = np.asarray(Image.open(waiting.value.path()).convert("RGB"))
    assert close(shown[shown.shape[0] // 2, shown.shape[1] // 2], CLASSES.palette[2])
    with window.page.expect_download() as waiting:
        window.page.click("#save-all")
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert archive.testzip() is None
        assert {"inputs/rgb.png", "depth.npy", "semseg.png", "det.json", "caption.txt", "request.json"} <= set(
            archive.namelist()
        )
        assert np.array_equal(np.load(io.BytesIO(archive.read("depth.npy"))), expected)
        assert json.loads(archive.read("request.json"))["columns"] == [{"title": "", "model": "1", "seed": 0}]


def test_refused_request_keeps_the_results(window):
    window.page.fill("#caption", "fail")
    window.page.click("#from-caption [type=submit]")
    window.page.wait_for_selector("#error:not([hidden])")
    assert window.page.inner_text("#error") == "The caption cannot be used."
    window.complained("the server responded with a status of 400")
    assert window.card("depth").locator("canvas").count() == 2
    window.page.fill("#caption", "a box")
    window.page.click("#from-caption [type=submit]")
    window.settled()
    assert window.page.locator("#error").is_hidden()


def test_keyboard_alone_is_enough(window):
    window.tab_to(".skip")
    window.tab_to("#image-file")
    window.tab_to("#examples button:nth-child(2)")
    window.press("Enter")
    window.settled()
    window.tab_to("#caption")
    window.page.keyboard.type("a blue box")
    window.press("Control+Enter")
    window.card("semseg").get_by_text("box").wait_for()
    window.settled()
    window.tab_to("#generate")
    window.tab_to('[data-label="rgb"] [data-key^="rgb/use"]')
    window.press("Enter")
    window.settled()
    assert window.inputs() == ["rgb", "caption"]
    window.tab_to('[data-label="depth"] .view')
    window.press("ArrowRight", "ArrowDown")
    value = answer("1", {}, 0)["depth"][SIDE // 2 + 1][SIDE // 2 + 1]
    assert window.card("depth").locator(".readout").inner_text() == f"{value:.2f} m"
    window.press("Control+z")
    assert window.inputs() == ["caption"]
