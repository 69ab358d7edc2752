"""`kedro generate` and `kedro retrieve` as they are typed. Answers are tested where the model is; here, what is refused."""

import pytest
from click.testing import CliRunner
from PIL import Image

from fourfold.generation.any_to_any import AnyToAny
from pipelines.cli import cli


def output_of(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, [*arguments])
    return result.exit_code, result.output


@pytest.fixture
def photo(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("photo.png")
    return "photo.png"


@pytest.mark.parametrize("command", [("generate", "--to", "depth"), ("retrieve",)])
def test_an_input_is_required(command):
    code, output = output_of(*command)
    assert code == 2 and "--image, --caption, --given" in output


def test_targets_are_required():
    code, output = output_of("generate", "--caption", "a cone")
    assert code == 2 and "--to" in output
    code, output = output_of("generate", "--caption", "a cone", "--to", " , ")
    assert code == 2 and "--to is empty" in output


def test_missing_image_is_reported(tmp_path):
    code, output = output_of("generate", "--image", str(tmp_path / "no.jpg"), "--to", "depth")
    assert code == 2 and "no.jpg" in output


def test_given_without_a_file_is_reported():
    code, output = output_of("generate", "--given", "depth", "--to", "rgb")
    assert code == 2 and "--given takes LABEL=FILE" in output and "'depth'" in output


@pytest.mark.parametrize("there", [True, False])
def test_folder_without_a_model_is_reported_on_one_line(tmp_path, photo, there):
    folder = tmp_path / "models"
    if there:
        folder.mkdir()
    code, output = output_of("generate", "--image", photo, "--to", "depth", "--model", str(folder))
    assert code == 78 and "Traceback" not in output
    assert not (tmp_path / "generated").exists()


def test_outside_of_a_project_the_model_is_required(photo):
    code, output = output_of("generate", "--image", photo, "--to", "depth")
    assert code == 78 and "not in a project" in output and "give the path" in output


class Sighted:
    """As much of a model as is asked before anything is generated."""

    def image_side(self, name):
        return 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--image", "notes.txt"), "notes.txt: Condition 'rgb': image unreadable. Use a JPEG, PNG"),
        (("--caption", "  "), "Condition 'caption': caption empty. Pass 1 to 1,000 characters"),
        (("--given", "dpeth=notes.txt"), "Unknown modality 'dpeth'. Did you mean 'depth'? Known: annotations, attributes, "),
        (("--given", "depth=notes.txt"), "notes.txt: These 5 bytes are not a 'depth' (npy)"),
        (("--given", "depth=absent.npy"), "absent.npy cannot be read (No such file or directory)."),
    ],
)
def test_unreadable_input_is_reported_on_one_line(photo, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(AnyToAny, "load", lambda folder: Sighted())
    (tmp_path / "notes.txt").write_text("notes")
    code, output = output_of("generate", "--to", "depth", "--model", ".", *arguments)
    assert code == 78
    assert message in " ".join(output.split()) and "Traceback" not in output
    assert len(output.splitlines()) == 1
    assert not (tmp_path / "generated").exists()
