"""Several engines as one: names are translated both ways, and every sample finds its request."""

import pytest

from amenable.generation.engine import Request, ScriptedEngine
from amenable.generation.routed import Place, RoutedEngine
from amenable.records.conversation import Conversation
from amenable.records.errors import NotFoundError
from amenable.records.sample import Sample, SamplingSettings

HI = Conversation.of(("user", "Hi"))


def ask(model: str) -> Request:
    return Request(prompt=HI, model=model, settings=SamplingSettings())


@pytest.fixture
def engine() -> RoutedEngine:
    house = ScriptedEngine({"base": ["and so on"]})
    guest = ScriptedEngine({"llama": ["Hello."], "other": ["Never asked."]})
    return RoutedEngine({"base": Place(house, "base"), "llama@there": Place(guest, "llama")})


def test_only_what_has_a_place_is_listed(engine: RoutedEngine):
    assert [ref.name for ref in engine.models()] == ["base", "llama@there"]


def test_each_request_goes_to_its_engine_and_comes_back_in_order(engine: RoutedEngine):
    heard: dict[int, Sample] = {}
    samples = engine.generate(
        [ask("llama@there"), ask("base"), ask("llama@there")], heard.__setitem__
    )
    assert [(each.model.name, each.reply) for each in samples] == [
        ("llama@there", "Hello."),
        ("base", "and so on"),
        ("llama@there", "Hello."),
    ]
    assert [heard[at] for at in range(3)] == samples


def test_a_stream_ends_with_the_name_it_was_asked_for(engine: RoutedEngine):
    *pieces, last = engine.stream(ask("llama@there"))
    assert "".join(map(str, pieces)) == "Hello."
    assert isinstance(last, Sample)
    assert last.model.name == "llama@there"
    assert engine.tokens("llama@there", HI)


def test_a_name_without_a_place_is_refused(engine: RoutedEngine):
    with pytest.raises(NotFoundError, match="other"):
        engine.generate([ask("other")])


def test_a_guest_that_its_address_does_not_list_is_named():
    engine = RoutedEngine({"a@b": Place(ScriptedEngine({"there": ["x"]}), "a")})
    with pytest.raises(NotFoundError, match="there"):
        engine.models()


def test_a_name_stands_for_its_latest_where_the_address_lists_tags():
    theirs = ScriptedEngine({"llama:latest": ["x"], "other:1b": ["x"]})
    assert RoutedEngine({"a@b": Place(theirs, "llama")}).models()[0].name == "a@b"
    with pytest.raises(NotFoundError, match="other:1b"):
        RoutedEngine({"a@b": Place(theirs, "other")}).models()
