"""No secret of an address is shown or kept."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerflow.errors import ConfigError, FolderChangedError, UnreachableError, mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://operator:s3cret@host:4200/api", "https://***@host:4200/api"),
        ("https://t0ken@host/api", "https://***@host/api"),
        ("postgresql+asyncpg://u:p@ss@db:5432/prefect", "postgresql+asyncpg://***@db:5432/prefect"),
        ("s3://AKIA:se/cr+et@bucket/data", "s3://***@bucket/data"),
        ("s3://AKIA:?se#cr@bucket/data", "s3://***@bucket/data"),
        ("s3://AKIA:se@/cr@?et@bucket/data", "s3://***@bucket/data"),
        ("https:/u:p@host/x", "https:/***@host/x"),  # as pathlib writes it
        ("https://account.blob.net/c?sv=1&sig=abc%3D", "https://account.blob.net/c?***"),
        ("https://host/hook?t0ken", "https://host/hook?***"),
        ("https://host/#access_token=abc", "https://host/?***"),
        ("at 'http://u:p@h/api', which", "at 'http://***@h/api', which"),
        ("first http://u:p@h and s3://k:s@b.", "first http://***@h and s3://***@b."),
        ("http://127.0.0.1:4200/api", "http://127.0.0.1:4200/api"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("gs://bucket/mnist@3.0.1/x", "gs://bucket/mnist@3.0.1/x"),
        ("docs/operations.md#server, a: b@c?d=e", "docs/operations.md#server, a: b@c?d=e"),
    ],
)
def test_user_password_and_query_are_masked_and_the_rest_stays(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked


_LETTERS = st.text(st.characters(categories=("L", "N"), include_characters="-_.~+/=%!$&:,;@?#*"), min_size=1)


@given(user=st.from_regex(r"[A-Za-z]\w*", fullmatch=True), password=_LETTERS)
@settings(deadline=None)
def test_no_password_gets_through(user: str, password: str) -> None:
    """Whatever stands in it, as long as a server could not take it for a port."""
    address = f"s3://{user}:x{password}@bucket/data"
    assert mask(f"no {address} here") == "no s3://***@bucket/data here"


def test_nested_content_is_masked_throughout() -> None:
    content = {"data": {"data_dir": "s3://k:s@b", "sizes": [1, None, "http://h?t=1"]}, "fine": ("a", 2.5, True)}
    assert mask(content) == {
        "data": {"data_dir": "s3://***@b", "sizes": [1, None, "http://h?***"]},
        "fine": ("a", 2.5, True),
    }


@pytest.mark.parametrize("letters", ["aA+/", "aA+"])
def test_a_picture_of_a_million_letters_stays_as_it_is(letters: str) -> None:
    """So many that a search which looks at all letters anew from each of them would not end."""
    picture = "data:image/png;base64," + letters * (10**6 // len(letters))
    assert mask(picture) == picture


@pytest.mark.parametrize("kind", [ConfigError, UnreachableError, FolderChangedError])
def test_every_error_of_ours_says_its_sentence_masked(kind: type[Exception]) -> None:
    assert str(kind("A bucket must answer at s3://key:secret@bucket.")) == "A bucket must answer at s3://***@bucket."
