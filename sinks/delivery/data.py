"""``data`` as the archive's column holds it: checked by the schema of its own version, in the shape of the newest."""

from __future__ import annotations

import msgspec

from streamgauge.events.catalogue import Catalogue
from streamgauge.events.decoders import data_struct
from streamgauge.events.json_schema import FieldSchema

__all__ = ["DataReader", "UnfitData"]

_any_decoder: msgspec.json.Decoder[object] = msgspec.json.Decoder(object)


class UnfitData(Exception):
    """``data`` does not fit its schema; the text names the field. It becomes the reason of an unarchivable record."""


class DataReader:
    """Reads the ``data`` of events of one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._decoders: dict[tuple[str, int], msgspec.json.Decoder[msgspec.Struct]] = {}

    def read(self, event_type: str, version: int, data: bytes) -> tuple[object, str | None]:
        """The value of the column ``data``, and the JSON of what does not fit into it (None without).

        Raises
        ------
        UnfitData
            A field is missing, of a wrong type, or out of its range.
        """
        key = (event_type, version)
        decoder = self._decoders.get(key)
        if decoder is None:
            decoder = msgspec.json.Decoder(data_struct(self._catalogue, event_type, None, version=version))
            self._decoders[key] = decoder
        try:
            # The struct checks; the plain value has the fields that the struct leaves out.
            decoder.decode(data)
            value = _any_decoder.decode(data)
            newest = self._catalogue.parsed(event_type, self._catalogue.versions(event_type)[-1])
            shaped, rest = _object(newest, self._catalogue.parsed(event_type, version), value)
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError) as error:
            raise UnfitData(str(error)) from error
        if not newest.properties:
            return _text(value), None
        return shaped, _text(rest) if rest else None


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _object(newest: FieldSchema, own: FieldSchema, value: object) -> tuple[dict[str, object], dict[object, object]]:
    assert isinstance(value, dict), "checked by its struct"
    shaped: dict[str, object] = {}
    rest: dict[object, object] = {name: part for name, part in value.items() if name not in own.properties}
    for name, field in newest.properties.items():
        own_field = own.properties.get(name)
        if own_field is None:
            shaped[name] = field.default
        elif name not in value:
            shaped[name] = own_field.default
        else:
            shaped[name], inner_rest = _value(field, own_field, value[name])
            if inner_rest is not None:
                rest[name] = inner_rest
    return shaped, rest


def _value(newest: FieldSchema, own: FieldSchema, value: object) -> tuple[object, object]:
    if value is None:
        return None, None
    if newest.kind == "object":
        if not newest.properties:
            return _text(value), None
        shaped, rest = _object(newest, own, value)
        return shaped, rest or None
    if newest.kind == "array":
        assert isinstance(value, list) and newest.items is not None and own.items is not None
        pairs = [_value(newest.items, own.items, item) for item in value]
        rests = [rest for _, rest in pairs]
        return [item for item, _ in pairs], rests if any(rest is not None for rest in rests) else None
    if newest.kind == "number" and isinstance(value, int):
        return float(value), None
    return value, None
