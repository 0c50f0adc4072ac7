import json
from pathlib import Path

import pytest
import torch
from benchmarks.training import results
from benchmarks.training.ceiling import Network, least_seconds
from benchmarks.training.gate import Gate, compared
from benchmarks.training.measure import Measured, Pair, interval
from benchmarks.training.peers import PEERS, Wanted
from benchmarks.training.rows import ROWS
from benchmarks.training.workers.gradients import sampled
from benchmarks.training.workers.protocol import digest
from benchmarks.training.workload import Example, Workload
from safetensors.torch import save_file
from tests.tiny import tiny_tokenizer

TEXTS = ["The sea was calm that evening, and nobody spoke.", "A second text follows the first."]


def workload(row: str, begin: tuple[int, ...] = (2,)) -> Workload:
    return Workload.of(ROWS[row], tiny_tokenizer("gemma"), begin, TEXTS)


def pair(ours: float, theirs: float, *, drift: float = 0.0, load: float = 0.0) -> Pair:
    return Pair(
        ours=ours,
        theirs=theirs,
        our_cpu=ours,
        their_cpu=theirs,
        drift=drift,
        load=load,
        flops=1e9,
    )


def gate(**changed: object) -> Gate:
    same = {"first_losses": (2.0, 2.00001), "later_gap": 0.0005, "cosine": 0.99999}
    return Gate(**{**same, "same_tokens": True, **changed})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_the_replies_and_prompts_that_it_says(name: str):
    row = ROWS[name]
    found = workload(name)
    assert {len(step) for step in found.steps()} == {row.prompts_per_step}
    assert {len(each.replies) for each in found.examples} == {row.num_replies}
    assert all(each.prompt[0] == 2 for each in found.examples)
    longest = max(len(reply) for each in found.examples for reply in each.replies)
    assert row.reply.least <= longest <= row.reply.most


def test_the_share_that_is_scored_in_finetuning_is_as_the_row_is_meant():
    examples = workload("sft-completion-only").examples
    share = sum(each.num_scored for each in examples) / sum(each.num_tokens for each in examples)
    assert 0.25 <= share <= 0.35


def test_without_a_first_token_something_still_stands_before_what_is_scored():
    assert all(each.prompt for each in workload("sft-full-text", begin=()).examples)


def test_both_sides_read_the_same_workload(tmp_path: Path):
    found = workload("kto")
    found.write(tmp_path / "w.json")
    assert Workload.read(tmp_path / "w.json") == found


def test_a_step_is_known_by_its_sequences_not_by_their_order_or_number():
    one, other = ([1, 2], [False, True]), ([1, 3], [False, True])
    assert digest([one, other]) == digest([other, one, one])
    assert digest([one]) != digest([([1, 2], [True, True])])
    assert digest([one]) != digest([([1, 4], [False, True])])


def test_gradients_are_sampled_only_where_a_matrix_is_a_vocabulary():
    found = sampled({"layer": torch.ones(3, 2), "module.words": torch.ones(20_480, 2)})
    assert (found["layer"].shape, found["words"].shape) == ((3, 2), (320, 2))


def test_the_gate_compares_tokens_losses_and_direction(tmp_path: Path):
    paths = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"w": torch.tensor([3.0, 4.0]), "mine": torch.ones(1)}, paths[0])
    save_file({"w": torch.tensor([4.0, 3.0])}, paths[1])
    found = compared(([2.0, 1.0], [2.0, 1.1]), (["x", "y"], ["x", "y"]), paths)
    assert found.cosine == pytest.approx(24 / 25)
    assert found.later_gap == pytest.approx(0.1 / 1.1)
    assert found.same_tokens
    assert not found.passes


@pytest.mark.parametrize(
    "changed",
    [
        {"first_losses": (2.0, 2.0001)},
        {"later_gap": 0.003},
        {"cosine": 0.9998},
        {"same_tokens": False},
    ],
)
def test_the_gate_closes_at_each_difference(changed: dict[str, object]):
    assert gate().passes
    assert not gate(**changed).passes


def test_sides_without_a_common_weight_are_refused(tmp_path: Path):
    paths = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"mine": torch.ones(1)}, paths[0])
    save_file({"theirs": torch.ones(1)}, paths[1])
    with pytest.raises(ValueError, match="name their weights differently"):
        compared(([1.0], [1.0]), (["x"], ["x"]), paths)


def test_a_pair_counts_only_while_the_machine_stays_what_it_was():
    assert pair(1.0, 3.0).counts
    assert pair(1.0, 3.0).ratio == 3.0
    assert not pair(1.0, 3.0, drift=0.06).counts
    assert not pair(1.0, 3.0, load=0.4).counts


def test_the_interval_holds_the_median_and_narrows_to_equal_ratios():
    low, high = interval([2.0, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6])
    assert 2.0 <= low < 2.3 < high <= 2.6
    assert interval([3.0] * 7) == (3.0, 3.0)


def test_the_least_time_of_a_step_by_hand():
    network = Network(backbone=10, head=5, num_layers=2, attention_width=4)
    step = [Example(prompt=[1] * 4, replies=[[1] * 2, [1] * 3], is_good=True)]
    # 6·10·9 + 6·5·5 + 12·4·2·(8 + 2·5 + 3·5.5), and 28 bytes for each of 15 weights.
    work = 540 + 150 + 96 * 34.5
    assert least_seconds(ROWS["dpo-long-prompts"], step, network, 100.0, 42.0) == pytest.approx(
        work / 100 + 28 * 15 / 42
    )
    reward = least_seconds(ROWS["reward-pairs"], step, network, 100.0, 42.0)
    assert reward == pytest.approx((work - 150) / 100 + 10)


def test_a_cell_says_what_was_measured_and_takes_the_place_of_the_old(tmp_path: Path):
    path = tmp_path / "training.json"
    about = Wanted(ROWS["kto"], "gemma-3-270m", PEERS["trl"], "tuned")
    pairs = [pair(2.0, 5.0), pair(2.0, 9.0, load=1.0), pair(2.0, 6.0)]
    measured = Measured(gate=gate(), pairs=pairs, peaks=(4, 8), read_rate=1.0)
    results.keep(results.cell_of(about, measured, [1.0, 1.0]), path)
    (cell,) = json.loads(path.read_text("utf-8"))
    assert (cell["ratio"], cell["pairs"], cell["tried"]) == (2.75, 2, 3)
    assert (cell["memory_ratio"], cell["ceiling_fraction"]) == (0.5, 0.5)
    closed = Measured(gate=gate(cosine=0.5))
    results.keep(results.cell_of(about, closed, []), path)
    (cell,) = results.read(path)
    assert "ratio" not in cell
    assert "same work" in cell["obstacle"]


def test_the_table_is_made_of_the_cells_and_leaves_the_words_around_it(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n{results.BEGINS}\nold\n{results.ENDS}\nAfter.\n", "utf-8")
    results.write_table(page)
    text = page.read_text("utf-8")
    assert text.startswith("Before.\n")
    assert text.endswith("\nAfter.\n")
    assert "old" not in text


def test_the_page_shows_the_results_that_are_kept():
    assert results.table(results.read()) in results.TABLE.read_text("utf-8")
