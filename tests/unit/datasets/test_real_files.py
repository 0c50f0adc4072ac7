"""Real, public files beside the repository, if they are there: each row is read or told."""

from pathlib import Path

import pytest

from amenable.datasets.read import ReadRow, read
from amenable.records.errors import DataError

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the folder of public data is not beside this repository"
)


@pytest.mark.parametrize(
    ("name", "kind", "num_good", "num_bad"),
    [
        ("identity_templates/identity.jsonl", "alpaca", 91, 0),
        ("hh_rlhf_harmless/eval.jsonl.gz", "preference", 289, 1),
        ("hh_rlhf_harmless/train.jsonl.gz", "preference", 1402, 8),
        ("ifeval/prompts.jsonl", "prompt-only", 282, 0),
        ("ifbench/prompts.jsonl", "prompt-only", 161, 0),
        ("xstest/prompts.jsonl", "prompt-only", 234, 0),
        ("xstest/completions_mistral.jsonl.gz", "prompt-completion", 468, 0),
        ("wiki_text/articles.jsonl.gz", "text", 24, 0),
    ],
)
def test_a_known_kind_is_found_and_every_row_accounted_for(
    name: str, kind: str, num_good: int, num_bad: int
):
    reading = read(SHARED / name)
    rows = list(reading.rows)

    assert reading.kind.name == kind
    assert sum(isinstance(row, ReadRow) for row in rows) == num_good
    assert len(rows) == num_good + num_bad  # the rows as SHARED/README.md counts them


def test_a_book_is_cut_at_paragraphs():
    rows = list(read(SHARED / "tinyshakespeare" / "input.txt.gz").rows)

    texts = [row.example.to_json()["text"] for row in rows if isinstance(row, ReadRow)]
    assert len(texts) == len(rows)
    assert str(texts[0]).startswith("First Citizen:\nBefore we proceed")


@pytest.mark.parametrize("name", ["gsm8k/train.jsonl.gz", "crowd_spam_part_gold/gold.jsonl"])
def test_a_file_of_no_known_kind_is_refused_with_its_keys(name: str):
    with pytest.raises(DataError, match=r"row 1 has .*, which is no known kind"):
        read(SHARED / name)
