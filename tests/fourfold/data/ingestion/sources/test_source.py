"""The settings of a source: a union over all registered kinds."""

import pytest
from pydantic import TypeAdapter, ValidationError

from fourfold.data.ingestion.ingest import IngestionConfig
from fourfold.data.ingestion.sources import SOURCES, AnySourceConfig
from fourfold.data.ingestion.sources.folder import FolderConfig
from fourfold.plugins import load_plugins
from fourfold.scenes.world import ScenesConfig

load_plugins(["fourfold.scenes"])
SETTINGS = TypeAdapter(AnySourceConfig)


def test_kind_selects_the_configuration_class():
    assert SETTINGS.validate_python({"kind": "folder", "path": "photos"}) == FolderConfig(path="photos")
    assert type(SETTINGS.validate_python({"kind": "scenes"})) is ScenesConfig


def test_every_source_has_a_config_class_of_its_kind():
    for kind, source in SOURCES.items():
        assert source.kind == kind == source.config_class.model_fields["kind"].default
        assert source.title


@pytest.mark.parametrize("source", [{"kind": "folder", "path": "photos", "file_field": "f"}, {"kind": "scenes", "far": 15.0}])
def test_settings_survive_json(source):
    config = IngestionConfig(source=source)
    assert config.model_dump(mode="json")["source"].items() >= source.items()
    assert IngestionConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "photos"}, r"A source needs a `kind`, one of: cc12m, coco, folder, parquet, scenes, several, webdataset"),
        (
            {"kind": "foldr"},
            r"Unknown source.kind 'foldr'. Did you mean 'folder'\? Known: cc12m, coco, folder, parquet, scenes, several, webd",
        ),
        (
            {"kind": "folder", "path": "photos", "file_fild": "x"},
            r"'folder': 'file_fild'. Did you mean 'file_field'\? Known: caption_field",
        ),
        ({"kind": "folder", "path": "photos", "max_file_bytes": 1}, r"source.max_file_bytes\n.* greater than or equal to 1000"),
        ("folder", "should be a valid dictionary or instance of SourceConfig"),
    ],
)
def test_wrong_settings_are_one_clear_error(source, message):
    with pytest.raises(ValidationError, match=message):
        IngestionConfig(source=source)
