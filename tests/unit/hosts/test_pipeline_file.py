"""A pipeline from disk, and what is wrong with it: always with the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamgauge.events.catalogue import SchemaError
from streamgauge.processors.core.parse import PipelineFileError
from streamgauge.processors.hosts.pipeline_file import load_pipeline, load_schemas

DEMO = Path(__file__).parents[3] / "streamgauge/cli/demo_pipeline/pipeline.toml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo's pipeline, to be spoiled."""
    for file in DEMO.parent.rglob("*"):
        target = tmp_path / file.relative_to(DEMO.parent)
        if file.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return tmp_path


def test_the_demos_pipeline_loads() -> None:
    pipeline = load_pipeline(DEMO)
    assert (pipeline.name, pipeline.stream) == ("demo", "observations")
    assert pipeline.catalogue.types == ("weather.observation",)


def test_the_schemas_are_found_beside_the_file_whatever_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert load_pipeline(folder.relative_to(folder.parent) / "pipeline.toml").name == "demo"


def test_every_version_of_a_type_is_read(folder: Path) -> None:
    first = folder / "schemas/weather.observation/1.json"
    schema = json.loads(first.read_text())
    schema.pop("$id", None)
    (first.parent / "2.json").write_text(json.dumps(schema))
    assert load_schemas(folder / "schemas").versions("weather.observation") == (1, 2)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineFileError, match=r"nowhere\.toml: there is no such file"):
        load_pipeline(tmp_path / "nowhere.toml")


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineFileError, match="cannot be read"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[pipeline]", "[pipeline", r"pipeline\.toml, line \d+.*not TOML"),
        ("[pipeline]", "[pipelines]", r"pipeline\.toml"),
        ('schemas = "schemas"\n', "", r"pipeline\.toml, \[pipeline\]: schemas must name the folder"),
        ('schemas = "schemas"', "schemas = 1", "schemas must name the folder"),
        ('schemas = "schemas"', 'schemas = "elsewhere"', "there is no folder .*elsewhere"),
    ],
    ids=["no TOML", "no pipeline", "no schemas", "schemas no text", "schemas not there"],
)
def test_a_bad_file_is_named(folder: Path, old: str, new: str, message: str) -> None:
    file = folder / "pipeline.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(PipelineFileError, match=message):
        load_pipeline(file)


def test_a_file_that_is_no_utf8_is_named(folder: Path) -> None:
    (folder / "pipeline.toml").write_bytes(b"[pipeline]\nname = '\xff'")
    with pytest.raises(PipelineFileError, match=r"pipeline\.toml: not UTF-8: .* at byte 19"):
        load_pipeline(folder / "pipeline.toml")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("1.json", b"{", r"1\.json, line 1, column 2: not JSON"),
        ("1.json", b"[]", r"1\.json: a JSON Schema is a JSON object"),
        ("1.json", b'"\xff"', r"1\.json: not UTF-8"),
        ("one.json", b"{}", r"one\.json: the name of a schema file is its version"),
        ("01.json", b"{}", r"01\.json: the name of a schema file is its version"),
    ],
)
def test_a_bad_schema_file_is_named(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / "schemas/weather.observation" / name).write_bytes(content)
    with pytest.raises(SchemaError, match=message):
        load_pipeline(folder / "pipeline.toml")
