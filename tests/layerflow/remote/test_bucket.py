"""A bucket, on a real S3 server in a process of its own, and in a folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from layerflow.errors import ConfigError, UnreachableError
from layerflow.remote import address, bucket
from layerflow.remote.bucket import Bucket
from tests.object_store import KEY_ID, SECRET, Proxy

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(params=["s3", "file"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """An empty bucket of each kind."""
    if request.param == "file":
        return Bucket(f"file://{tmp_path}/a%20folder")
    request.getfixturevalue("endpoint")
    return in_force()


def in_force() -> Bucket:
    found = bucket.in_force()
    assert found
    return found


pytestmark = pytest.mark.process  # the S3 server is one: what it answers is what is tested


def test_without_the_variable_there_is_no_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERFLOW_REMOTE", "")
    assert bucket.in_force() is None


def test_an_object_is_read_as_it_was_written(lake: Bucket) -> None:
    assert lake.get("a/.b/é x") is None
    lake.put("a/.b/é x", b"1")
    found = lake.get("a/.b/é x")
    assert found
    assert found.content == b"1"
    lake.copy("a/.b/é x", "a/c")
    assert lake.names("a") == [".b/é x", "c"]
    assert lake.folders("a") == [".b"]
    lake.delete(["a/c", "a/c"])
    assert lake.size("a/c") is None
    assert lake.names("nothing") == []


def test_a_large_file_takes_several_requests(lake: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_CHUNK", 5 * 2**20)
    (tmp_path / "file").write_bytes(bytes(range(256)) * 50_000)
    lake.upload(tmp_path / "file", "large")
    assert lake.download("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()
    assert not lake.download("nothing", tmp_path / "nothing")


def test_an_object_is_created_once(lake: Bucket) -> None:
    assert lake.create("a", b"mine")
    assert lake.create("a", b"yours") is None
    assert lake.create("a", b"mine"), "the answer to an earlier try may have been lost"


def test_an_object_is_replaced_by_who_has_seen_it_last(lake: Bucket) -> None:
    first = lake.create("a", b"1")
    assert first
    second = lake.swap("a", b"2", first)
    assert second
    assert lake.swap("a", b"3", first) is None
    assert lake.swap("gone", b"3", first) is None
    assert lake.swap("a", b"3", second)


@pytest.mark.parametrize("kind", ["503", "403", "reset", "lost answer", "slow"])
@pytest.mark.parametrize("verb", ["GET", "PUT", "HEAD"])
def test_a_request_that_fails_a_few_times_succeeds(endpoint: Proxy, tmp_path: Path, kind: str, verb: str) -> None:
    endpoint.fail(kind, f"{verb} .*", times=2)  # type: ignore[arg-type]
    (tmp_path / "file").write_bytes(bytes(300_000))
    in_force().upload(tmp_path / "file", "a")
    assert in_force().create("b", b"mine")
    assert in_force().download("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == bytes(300_000)


def test_a_swap_whose_answer_is_lost_is_known_to_have_succeeded(endpoint: Proxy) -> None:
    first = in_force().create("a", b"1")
    assert first
    endpoint.fail("lost answer", "PUT .*", times=1)
    second = in_force().swap("a", b"2", first)
    assert second
    assert in_force().swap("a", b"3", second)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("503", "it answered 503"),
        ("403", "it answered 403"),
        ("reset", "the connection broke"),
        ("hang", "it took too long to answer"),
    ],
)
def test_a_request_that_always_fails_ends_in_one_sentence_without_secrets(
    endpoint: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, said: str
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setattr(address, "REQUEST_SECONDS", 0.2)
    endpoint.fail(kind)  # type: ignore[arg-type]
    with pytest.raises(UnreachableError, match=f"must let this process write a, and {said}.*; check the") as caught:
        in_force().put("a", b"1" * 100_000)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    for secret in (KEY_ID, SECRET, "Signature"):
        assert secret not in f"{caught.value}{caplog.text}"


def test_an_endpoint_that_has_vanished_is_said_to_refuse_connections(endpoint: Proxy) -> None:
    endpoint.close()
    with pytest.raises(UnreachableError, match="the connection was refused"):
        in_force().get("a")


def test_a_bucket_that_is_not_there_is_named(endpoint: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERFLOW_REMOTE", "s3://no-such-lake/x")
    with pytest.raises(UnreachableError, match=r"s3://no-such-lake/x .* there is no such bucket"):
        in_force().put("a", b"")


def test_an_object_that_is_too_large_for_memory_is_not_read(lake: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.put("a", b"123")
    monkeypatch.setattr(bucket, "_MOST_BYTES", 2)
    with pytest.raises(UnreachableError, match="larger than 2 bytes"):
        lake.get("a")


@pytest.mark.parametrize(
    "wrong", ["bucket", "http://bucket/x", "s3:///x", "s3://", "file://host", "file:///", "s3://b/../c", "s3://[b/x"]
)
def test_an_address_of_no_bucket_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"Received: {wrong}")):
        Bucket(wrong)


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_folder_that_can_not_be_made_is_one_sentence(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match="must be a folder that can be made and read; received: "):
        Bucket(f"file://{tmp_path / folder}")


@pytest.mark.parametrize("wrong", ["s3://id:s3cret@b/x", "s3://b/x?key=s3cret", "az://b/x#sig=s3cret"])
def test_an_address_with_credentials_is_refused_and_not_repeated(wrong: str) -> None:
    with pytest.raises(ConfigError, match="without credentials") as caught:
        Bucket(wrong)
    assert "s3cret" not in str(caught.value)


def test_without_obstore_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'layerflow\[cloud\]'"):
        Bucket("s3://bucket/x")


def test_without_the_variable_obstore_is_never_imported(tmp_path: Path) -> None:
    """In a new process, in which no other test has imported it."""
    script = (
        "import sys; from layerflow.registry import publishing, sharing; from layerflow.remote import mirror\n"
        "mirror.keep('build_model/k'); mirror.flush(); sharing.refresh_all()\n"
        "with sharing.changing('m'): assert publishing.next_version('m') == 1\n"
        "sys.exit('obstore' in sys.modules)"
    )
    environment = {**os.environ, "LAYERFLOW_STORE": str(tmp_path)}
    environment.pop("LAYERFLOW_REMOTE", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
