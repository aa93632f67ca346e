"""The function's package: what is in it, what is not, and that its name is that of its contents."""

from __future__ import annotations

import os
import py_compile
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from streamgauge.events.errors import StreamgaugeError
from streamgauge.infra.packaging.archive import PackageTooLarge, write_archive
from streamgauge.infra.packaging.build import PIPELINE_FILE, build_package
from streamgauge.infra.packaging.bytecode import bytecode
from streamgauge.infra.packaging.contents import SERVICES, is_needed
from streamgauge.infra.packaging.distributions import PackagesMissing, files_of
from streamgauge.infra.packaging.lock import PYTHON_VERSIONS, Locked, LockError, Target, lock_text, locked
from streamgauge.processors.hosts.pipeline_file import load_pipeline

ROOT = Path(__file__).parents[3]
PIPELINE = ROOT / "streamgauge/cli/demo_pipeline/pipeline.toml"
CLI_ONLY = {"click", "rich"}
LAMBDA = Target("3.13", "arm64")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_package(PIPELINE, tmp_path_factory.mktemp("package"), target=None, say=print).path


@pytest.fixture(scope="module")
def unpacked(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder)
    return folder


def in_package(folder: Path, code: str) -> str:
    """Run code that sees the package and the standard library, as a function does; nothing else."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"],
        env={"PATH": os.environ["PATH"], "AWS_DEFAULT_REGION": "us-east-1", "POWERTOOLS_SERVICE_NAME": "test"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lock_holds_what_the_function_needs_in_the_versions_that_are_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["lambda"]]
    names = {canonicalize_name(each.name) for each in stated} - CLI_ONLY
    for target in (None, *(Target(version, "arm64") for version in PYTHON_VERSIONS)):
        found = {each.name: each.version for each in locked(lock_text(), target)}
        assert names <= set(found)
        assert not {"pyarrow", "duckdb", "rich", "click"} & set(found)
        tested = {each.name: each.version for each in locked((ROOT / "requirements/dev.lock").read_text(), target)}
        assert found.items() <= tested.items()


def test_a_line_is_taken_where_its_marker_holds_for_the_target() -> None:
    text = (
        "a==1 ; python_full_version < '3.13' \\\n    --hash=sha256:aa\n"
        "a==2 ; python_full_version >= '3.13' \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n    # via b\n"
        "w==1 ; sys_platform == 'win32' \\\n    --hash=sha256:dd\n"
    )
    assert locked(text, Target("3.12", "x86_64")) == [Locked("a", "1", ("sha256:aa",))]
    assert locked(text, Target("3.13", "x86_64")) == [Locked("a", "2", ("sha256:bb", "sha256:cc"))]
    assert locked(text, Target("3.13", "x86_64"))[0].requirement == "a==2 --hash=sha256:bb --hash=sha256:cc"


@pytest.mark.parametrize("line", ["a>=1 --hash=sha256:aa", "a==1", "a==1 ; nonsense --hash=sha256:aa", "-r other.txt"])
def test_a_lock_that_does_not_pin_is_refused(line: str) -> None:
    with pytest.raises(LockError):
        locked(line + "\n", LAMBDA)


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("numpy/_core/_multiarray_umath.cpython-313-x86_64-linux-gnu.so", True),
        ("numpy.libs/libscipy_openblas64_-1234.so", True),
        ("numpy/testing/__init__.py", True),
        ("numpy/_core/tests/test_umath.py", False),
        ("numpy/__init__.pyi", False),
        ("numpy/_core/include/numpy/ndarraytypes.h", False),
        ("numpy-2.5.5.dist-info/METADATA", True),
        ("numpy-2.5.5.dist-info/RECORD", False),
        ("boto3/__pycache__/session.cpython-313.pyc", False),
        ("botocore/data/endpoints.json", True),
        ("botocore/data/kinesis/2013-12-02/service-2.json.gz", True),
        ("botocore/data/ec2/2016-11-15/service-2.json.gz", False),
        ("zstandard/backend_c.cpython-313-x86_64-linux-gnu.so", True),
        ("zstandard/_cffi.cpython-313-x86_64-linux-gnu.so", False),
        ("bin/f2py", False),
        ("../../../bin/f2py", False),
        ("_editable.pth", False),
        ("six.py", True),
    ],
)
def test_files_that_no_function_needs_stay_out(name: str, *, needed: bool) -> None:
    assert is_needed(PurePosixPath(name)) is needed


def test_the_same_contents_give_the_same_bytes_and_name(tmp_path: Path) -> None:
    source = tmp_path / "b.py"
    source.write_text("x = 1\n")
    first = write_archive({"a.py": b"", "b.py": source}, tmp_path / "1", stem="s", level=6)
    os.utime(source, (1, 1))
    source.chmod(0o700)
    second = write_archive({"b.py": source, "a.py": b""}, tmp_path / "2", stem="s", level=6)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.path.name == second.path.name == f"s-{first.digest}.zip"
    assert first.unpacked_bytes == 6


@pytest.mark.parametrize("files", [{"a.py": b"", "b.py": b"x = 2\n"}, {"a.py": b"", "c.py": b"x = 1\n"}])
def test_other_contents_give_another_name(tmp_path: Path, files: dict[str, bytes | Path]) -> None:
    first = write_archive({"a.py": b"", "b.py": b"x = 1\n"}, tmp_path, stem="s", level=0)
    assert write_archive(files, tmp_path, stem="s", level=0).digest != first.digest


def test_bytecode_that_happens_to_be_there_does_not_change_the_name(tmp_path: Path) -> None:
    source = {"a.py": b"x = 1\n"}
    compiled = source | {"__pycache__/a.cpython-311.pyc": b"compiled"}
    digests = [write_archive(files, tmp_path, stem="s", level=0).digest for files in (source, compiled)]
    assert digests[0] == digests[1]


def test_a_package_that_lambda_would_refuse_is_refused_with_its_largest_parts(tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {"numpy/a.so": b"x" * 700, "numpy/b.so": b"x" * 200, "six.py": b"x" * 150}
    assert write_archive(files, tmp_path, stem="s", level=0, limit=1_050).unpacked_bytes == 1_050
    with pytest.raises(PackageTooLarge, match=r"largest parts: numpy .*, six\.py"):
        write_archive(files, tmp_path, stem="s", level=0, limit=1_049)


def test_the_package_holds_our_code_its_dependencies_and_the_pipeline_alone(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
        text = archive.read(PIPELINE_FILE).decode()
    assert text == PIPELINE.read_text()
    ours = {"/".join(name.split("/")[:2]) for name in names if name.startswith("streamgauge/") and name[-1] != "c"}
    assert ours == {
        f"streamgauge/{each}" for each in ("__init__.py", "settings.py", "py.typed", "events", "processors")
    }
    tops = {name.split("/")[0] for name in names}
    assert tops >= {"boto3", "botocore", "msgspec", "numpy", "zstandard", "google", "aws_lambda_powertools", "pipeline"}
    assert not tops & {"pyarrow", "duckdb", "rich", "click", "pip", "bin"}
    for folder in ("events", "processors"):
        there = set((ROOT / "streamgauge" / folder).resolve().rglob("*.py"))
        assert len([name for name in names if name.startswith(f"streamgauge/{folder}/")]) >= len(there)


def test_a_local_package_brings_the_bytecode_that_is_at_hand(unpacked: Path, tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("x = 1\n")
    assert bytecode({"module.py": source}) == {}
    py_compile.compile(str(source))
    (name, code), *_ = bytecode({"module.py": source, "other.py": b""}).items()
    target = tmp_path / "package" / name
    target.parent.mkdir(parents=True)
    target.write_bytes(code)
    # Had it been compiled from the file beside it, x would be another.
    (tmp_path / "package" / "module.py").write_text("x = 2\n")
    assert in_package(tmp_path / "package", "import module; print(module.x)").strip() == "1"
    source.write_text("x = 1000\n")
    assert bytecode({"module.py": source}) == {}
    assert len(list(unpacked.rglob("botocore/__pycache__/*.pyc"))) > 20


def test_everything_of_it_can_be_imported_without_anything_else(unpacked: Path) -> None:
    modules = [
        ".".join(path.relative_to(unpacked).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((unpacked / "streamgauge").rglob("*.py"))
        if "kcl" not in path.parts  # another host
    ]
    assert len(modules) > 60
    in_package(unpacked, f"from importlib import import_module\nfor name in {modules}: import_module(name)")


def test_the_services_that_our_code_calls_have_their_models(unpacked: Path) -> None:
    called = set()
    for path in (unpacked / "streamgauge").rglob("*.py"):
        called |= set(re.findall(r"\bclient\(\s*[\"']([a-z0-9-]+)[\"']", path.read_text()))
    assert called <= set(SERVICES)
    code = f"import boto3\nprint([boto3.client(s).meta.service_model.service_name for s in {SERVICES}])"
    assert in_package(unpacked, code).strip() == str(list(SERVICES))


def test_the_pipeline_in_it_is_the_one_outside(unpacked: Path) -> None:
    inside, outside = load_pipeline(unpacked / PIPELINE_FILE), load_pipeline(PIPELINE)
    assert (inside.name, inside.aggregates, inside.thresholds) == (outside.name, outside.aggregates, outside.thresholds)
    assert inside.catalogue.types == outside.catalogue.types


def test_schemas_that_lie_elsewhere_are_moved_beside_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "shared/weather.observation").mkdir(parents=True)
    text = PIPELINE.read_text()
    schema = PIPELINE.parent / "schemas/weather.observation/1.json"
    (tmp_path / "shared/weather.observation/1.json").write_bytes(schema.read_bytes())
    moved = tmp_path / "own/pipeline.toml"
    moved.write_text(re.sub(r"(?m)^schemas = .*$", 'schemas = "../shared" # for all', text))
    with zipfile.ZipFile(build_package(moved, tmp_path, target=None, say=print).path) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert load_pipeline(tmp_path / "unpacked" / PIPELINE_FILE).catalogue.types == ("weather.observation",)
    moved.write_text(text.replace('schemas = "schemas"', '"schemas" = "../shared"'))
    with pytest.raises(StreamgaugeError, match="line of its own"):
        build_package(moved, tmp_path, target=None, say=print)


def test_what_is_not_installed_in_the_locks_version_is_asked_of_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    six = Locked("six", metadata.version("six"), ("sha256:" + "0" * 64,))
    said: list[str] = []
    work = tmp_path / "work"
    work.mkdir()
    assert set(files_of([six], None, work=work, say=said.append)) >= {"six.py"}
    assert said == []
    other = Locked("six", "1.0.1", six.hashes)
    with pytest.raises(PackagesMissing, match=r"(?s)six==1\.0\.1.*pip config list"):
        files_of([other], None, work=work, say=said.append)
    assert said == ["fetching six 1.0.1 ..."]


def test_for_lambda_the_wheels_are_those_of_its_platform(tmp_path: Path) -> None:
    built = build_package(PIPELINE, tmp_path, target=LAMBDA, say=print)
    with zipfile.ZipFile(built.path) as archive:
        compiled = {name for name in archive.namelist() if ".so" in PurePosixPath(name).suffixes}
    tagged = {name for name in compiled if ".cpython-" in name}
    assert len(tagged) > 10
    assert all("cpython-313-aarch64-linux-gnu" in name for name in tagged)
    assert built.packed_bytes < 50_000_000 < built.unpacked_bytes < 150_000_000
