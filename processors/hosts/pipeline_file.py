"""A pipeline from disk: its TOML file, and the folder of JSON Schemas beside it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from streamgauge.events.catalogue import Catalogue, EventSchema, SchemaError
from streamgauge.processors.core.definition import Pipeline
from streamgauge.processors.core.parse import PipelineFileError, parse_pipeline
from streamgauge.processors.hosts.time_zones import load_time_zone

__all__ = ["load_pipeline", "load_schemas"]


def load_pipeline(path: str | Path) -> Pipeline:
    """Read and check a pipeline file and its schemas.

    Parameters
    ----------
    path
        The TOML file. Its ``schemas`` names a folder relative to it, with one file ``<type>/<version>.json`` for each
        version of each event type.

    Raises
    ------
    PipelineFileError
        The file cannot be read, or something in it is wrong: with file and line.
    SchemaError
        A schema cannot be read or is not supported: with its file.
    """
    file = Path(path)
    text = _read(file)
    table = _pipeline_table(text)
    if table is None:
        # The parser says what is wrong, with its line.
        return parse_pipeline(text, file=str(path), schemas=Catalogue([]))
    folder = table.get("schemas")
    if not isinstance(folder, str) or not folder:
        raise PipelineFileError(
            "schemas must name the folder of JSON Schemas, relative to this file",
            where=f"{path}, [pipeline]",
            remedy='Write schemas = "schemas"',
        )
    schemas = file.parent / folder
    if not schemas.is_dir():
        raise PipelineFileError(
            f"schemas: there is no folder {schemas}",
            where=str(path),
            remedy="It holds one file <type>/<version>.json for each version of each event type",
        )
    return parse_pipeline(text, file=str(path), schemas=load_schemas(schemas), time_zones=load_time_zone)


def load_schemas(folder: str | Path) -> Catalogue:
    """Read all schemas of a folder, ``<type>/<version>.json``.

    Raises
    ------
    SchemaError
        A file is no JSON object, is misnamed, or is not supported.
    """
    return Catalogue(_schemas(Path(folder)))


def _schemas(folder: Path) -> Iterator[EventSchema]:
    for file in sorted(folder.glob("*/*.json")):
        version = file.stem
        if not (version.isascii() and version.isdecimal() and version == str(int(version)) and version != "0"):
            raise SchemaError(
                f"the name of a schema file is its version, 1.json, 2.json and so on, not {file.name}", where=str(file)
            )
        try:
            schema = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise SchemaError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
        except UnicodeDecodeError as error:
            raise SchemaError(f"not UTF-8: {error.reason} at byte {error.start}", where=str(file)) from error
        except json.JSONDecodeError as error:
            place = f"{file}, line {error.lineno}, column {error.colno}"
            raise SchemaError(f"not JSON: {error.msg}", where=place) from error
        if not isinstance(schema, dict):
            raise SchemaError("a JSON Schema is a JSON object", where=str(file))
        yield EventSchema(file.parent.name, int(version), schema)


def _pipeline_table(text: str) -> Mapping[str, object] | None:
    """The table [pipeline]; None where there is none to be had."""
    try:
        table = tomllib.loads(text).get("pipeline")
    except tomllib.TOMLDecodeError:
        return None
    return table if isinstance(table, dict) else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PipelineFileError(
            "there is no such file", where=str(file), remedy="`streamgauge init` writes one for your data"
        ) from None
    except OSError as error:
        raise PipelineFileError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise PipelineFileError(f"not UTF-8: {error.reason} at byte {error.start}", where=str(file)) from error
