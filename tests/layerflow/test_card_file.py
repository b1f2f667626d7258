"""What a person says of a model: read as it is written, or refused in one sentence."""

from pathlib import Path

import pytest

from layerflow import card_file
from layerflow.card_file import CardFile
from layerflow.errors import ConfigError
from layerflow.settings.gate import RegistryConfig
from tasks.card_file import require_card


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_working_folder_or_the_settings_say_where_it_is(here: Path) -> None:
    assert card_file.read(None) is None
    (here / "card.yaml").write_text("license: mit\nauthors: [Ada, Grace]\nlimitations: |\n  One.\n\n  Two.\ncontact:\n")
    assert card_file.read(None) == CardFile(license="mit", authors=["Ada", "Grace"], limitations="One.\n\nTwo.\n")
    (here / "other.yaml").write_text("license: isc")
    assert card_file.read(Path("other.yaml")) == CardFile(license="isc")
    (here / "card.yaml").write_text("")
    assert card_file.read(None) == CardFile()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "licence: mit",
            r"^card\.yaml must have no other fields than intended_use, .*contact\. Received: licence \(did ",
        ),
        ("license: 3", r"^card\.yaml: license: input should be a valid string\. Received: 3$"),
        ("authors: Ada", r"^card\.yaml: authors: input should be a valid list\. Received: 'Ada'$"),
        ("authors: [[Ada]]", r"^card\.yaml: authors\.0: input should be a valid string\. Received: \['Ada'\]$"),
        (f"contact: {'x' * 501}", r"^card\.yaml: contact: string should have at most 500 characters\. Received: 'x+…$"),
        (f"limitations: {'x' * 10_001}", r"^card\.yaml: limitations: string should have at most 10000 characters"),
        (f"authors: [{'a, ' * 101}]", r"^card\.yaml: authors: list should have at most 100 items"),
        (r'contact: "\e[2J"', r"^card\.yaml: contact: text without control characters\. Received: '\\x1b\[2J'$"),
        (r'license: "\ud800"', r"^card\.yaml: license: input should be a valid string, unable to parse"),
        (f"limitations: '{'x' * 2**16}'", r"^card\.yaml must have at most 65,536 bytes\. It has more"),
        ("- mit", r"^card\.yaml must hold a mapping such as `license: apache-2\.0`\. Received: \['mit'\]$"),
        ("license: [mit", r"^card\.yaml must be YAML with plain values: line 1: .*\.$"),
    ],
)
def test_wrong_content_is_one_sentence(here: Path, content: str, sentence: str) -> None:
    (here / "card.yaml").write_text(content)
    with pytest.raises(ConfigError, match=sentence) as caught:
        require_card(RegistryConfig())
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_was_named_must_be_there(here: Path) -> None:
    for name in ("lost.yaml", ".", "\0"):
        with pytest.raises(ConfigError, match=r"^registry\.card must name a YAML file that can be read\. Received: "):
            require_card(RegistryConfig(card=Path(name)))
    require_card(RegistryConfig())
