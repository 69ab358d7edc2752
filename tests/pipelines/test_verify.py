"""`kedro verify`: shards against their manifests."""

import numpy as np
import pytest
from click.testing import CliRunner

from fourfold.data.shards import finish_split, shard_name, write_columns
from fourfold_ops.errors import EXIT_DIFFERS, UserError
from pipelines.verify import verify

RGB = np.zeros((4, 4, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    for number in range(2):
        keys = [f"k{number}{row}" for row in range(3)]
        columns = {"rgb": [(key, RGB) for key in keys], "caption": [(key, "a cat") for key in keys]}
        write_columns(tmp_path / "data/shards", "val", shard_name(number), columns)
    finish_split(tmp_path / "data/shards", "val", ["rgb", "caption"])
    return tmp_path / "data"


def run(*places):
    return CliRunner().invoke(verify, [str(place) for place in places])


def test_intact_shards_are_listed_with_their_sizes(folder):
    for place in (folder, folder / "shards", folder / "shards/val/rgb/manifest.json"):
        done = run(place)
        assert done.exit_code == 0, done.output
        lines = done.output.splitlines()
        assert [line.rpartition("/")[2].partition(":")[0] for line in lines] == ["caption", "rgb"]
        assert all("6 samples, 2 shards" in line and line.endswith("as recorded") for line in lines)


@pytest.mark.parametrize("name", ["shard-00001.tar", "shard-00001.facts.parquet", "manifest.json"])
def test_what_differs_is_named_and_the_rest_is_verified(folder, name):
    path = folder / "shards/val/rgb" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = run(folder)
    assert done.exit_code == EXIT_DIFFERS
    damage, *_ = [line for line in done.output.splitlines() if name in line]
    assert "expected" in damage and "val/caption: 6 samples" in done.output
    assert "1 of the above differ" in done.output


def test_a_place_without_shards_is_an_error(tmp_path):
    with pytest.raises(UserError, match="has no shards with manifests"):
        CliRunner().invoke(verify, [str(tmp_path)], catch_exceptions=False)
