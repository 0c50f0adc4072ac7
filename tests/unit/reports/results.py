"""Results of comparisons as values, for the tests of reports."""

from amenable.records.measurement import Difference, Measured, Row
from amenable.reports.result import (
    ComparedModel,
    CurvePoint,
    Frame,
    Kind,
    Lineage,
    Result,
    Settings,
    ShownExample,
    ShownReply,
    Training,
    Turn,
    VotesTaught,
    WorstFamily,
)

KINDS: dict[str, Kind] = {
    "base": "base",
    "base (helped)": "helped",
    "v1": "policy",
    "v2": "policy",
}


def measured(value: float) -> Measured:
    return Measured(value=value, low=value - 0.05, high=value + 0.05)


def difference(model: str, against: str, value: float, p: float = 0.001) -> Difference:
    return Difference(
        model=model, against=against, value=value, low=value - 0.1, high=value + 0.1, p=p
    )


def row(
    metric: str, values: dict[str, float], *differences: Difference, unit: str = "share"
) -> Row:
    return Row(
        aspect="content generation",
        metric=metric,
        unit=unit,
        n=152,
        values={name: measured(value) for name, value in values.items()},
        differences=differences,
        better="lower" if metric == "perplexity" else "higher",
        title=metric.partition("/")[2] or metric,
        about=f"How {metric} is made.",
    )


VALUES = {"base": 0.1, "base (helped)": 0.2, "v1": 0.45, "v2": 0.5}
MAIN = row(
    "constraints_met",
    VALUES,
    difference("v1", "base (helped)", 0.25),
    difference("v2", "base (helped)", 0.3),
    difference("v2", "v1", 0.05, p=0.4),
)


def result(said: str = "A reply.", name: str = "v2", **changes: object) -> Result:
    """A whole result; `said` stands wherever people or models wrote something."""
    kinds = KINDS
    rows = (
        MAIN,
        row("ends_by_itself", VALUES, difference("v2", "base (helped)", 0.3)),
        row(
            "perplexity",
            {"base": 20, "v1": 21, "v2": 21},
            difference("v2", "base", 1),
            unit="perplexity",
        ),
        row("constraints_met/plan", VALUES, difference("v2", "base (helped)", 0.3)),
        row("constraints_met/code", VALUES, difference("v2", "base (helped)", 0.3)),
    )
    example = ShownExample(
        rule="largest gain",
        key="p1",
        family=said,
        prompt=(Turn(role="system", content=said), Turn(role="user", content=said)),
        checks=(said,),
        replies={
            each: ShownReply(text=said, stop_reason="length", checks_met=(True,)) for each in kinds
        },
    )
    film = (
        Frame(step=0, prompt=said, reply=said, log_p_end=-9.0),
        Frame(step=10, prompt=said, reply=said),
    )
    loss = (CurvePoint(step=1, value=3.0), CurvePoint(step=2, value=2.5))
    values: dict[str, object] = {
        "models": tuple(
            ComparedModel(name=each, kind=kind, form="plain", parent=None, sha256="0" * 64)
            for each, kind in kinds.items()
        ),
        "rows": rows,
        "headline": f"Headline {said}",
        "says": (f"Finding {said}",),
        "examples": (example,),
        "lineage": {
            each: Lineage(parent=None, kind=kind, facts={"origin": said, "licence": "CC0-1.0"})
            for each, kind in kinds.items()
        },
        "worst_family": {
            each: WorstFamily(family="code", measured=measured(0.1), n=8) for each in kinds
        },
        "training": (Training(model=name, stage="finetune", run_id="run-1", loss=loss, film=film),),
        "votes_taught": VotesTaught(
            before="v1",
            after="v2",
            num_votes=20,
            is_simulated=True,
            rows=(row("length", {"v1": 0.3, "v2": 0.2}, difference("v2", "v1", -0.1)),),
            says=f"Taught {said}",
        ),
        "simulated_people": True,
        "settings": Settings(
            measured_at="2026-01-02 03:04 UTC",
            seed=7,
            num_prompts=152,
            prompts_origin=said,
            prompts_licence="CC0-1.0",
            texts_origin=said,
            decoding={"replies": "greedy"},
            kinds_tested=("max_words", "one_of"),
            kinds_also_taught=("max_words",),
            versions={"amenable": "0.1.0"},
            stop_texts={"base (helped)": ("\n\nRequest:", said)},
        ),
    }
    return Result(**{**values, **changes})  # pyright: ignore[reportArgumentType]
