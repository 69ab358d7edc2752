"""`kedro generate`, as it is typed. What it answers is tested where the model is; here, that nothing is asked in vain."""

import pytest
from click.testing import CliRunner
from PIL import Image

from pipelines.cli import cli


def output_of(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["generate", *arguments])
    return result.exit_code, result.output


def test_something_to_start_from_must_be_given():
    code, output = output_of("--to", "depth")
    assert code == 2 and "--image, --caption or both" in output


def test_what_to_generate_must_be_said():
    code, output = output_of("--caption", "a cone")
    assert code == 2 and "--to" in output


def test_an_image_that_is_not_there_is_named(tmp_path):
    code, output = output_of("--image", str(tmp_path / "no.jpg"), "--to", "depth")
    assert code == 2 and "no.jpg" in output


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_a_model_is_one_line(tmp_path, monkeypatch, there):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("photo.png")
    folder = tmp_path / "models"
    if there:
        folder.mkdir()
    code, output = output_of("--image", "photo.png", "--to", "depth", "--model", str(folder))
    assert code == 1 and "Traceback" not in output
    assert not (tmp_path / "generated").exists()
