"""The table of commands, in the order in which a newcomer meets them; each is loaded when used."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from amenable.apps.cli.out import Out

ROOM = "amenable.apps.cli.commands"


@dataclass(frozen=True, slots=True)
class Command:
    """Its one sentence, and where its arguments and its function stand: "file", "Name", "name"."""

    sentence: str
    file: str
    arguments_name: str
    function_name: str = "run"

    def arguments(self) -> type[Any]:
        return getattr(import_module(f"{ROOM}.{self.file}"), self.arguments_name)

    def run(self, arguments: object, out: Out) -> dict[str, Any] | None:
        """Do it; gives the value for --json."""
        function: Callable[[object, Out], dict[str, Any] | None]
        function = getattr(import_module(f"{ROOM}.{self.file}"), self.function_name)
        return function(arguments, out)


@dataclass(frozen=True, slots=True)
class Group:
    """Commands about one thing."""

    sentence: str
    commands: Mapping[str, Command]


COMMANDS: Mapping[str, Mapping[str, Command | Group]] = {
    "The loop": {
        "start": Command(
            "Start the loop from base to instruct model, or go on with it.",
            "start",
            "StartArguments",
        ),
        "plan": Command(
            "Say what a model will cost here: memory, download, and minutes for each stage.",
            "plan",
            "PlanArguments",
        ),
        "chat": Command(
            "Talk to a model in the terminal; it remembers the turns until /new.",
            "chat",
            "ChatArguments",
        ),
        "report": Command(
            "Write the report of a comparison: one HTML file that opens offline.",
            "report",
            "ReportArguments",
        ),
    },
    "What it works with": {
        "models": Group(
            "The library of models, and how they descend from each other.",
            {
                "list": Command(
                    "List the models of the library as a family tree, and what can be added.",
                    "models",
                    "ListArguments",
                    "list_models",
                ),
                "show": Command(
                    "Show one model: where it comes from, its licence, its size and its relatives.",
                    "models",
                    "ShowArguments",
                    "show_model",
                ),
                "add": Command(
                    "Bring a model in: by name, from a folder, a GGUF file, or a hub id.",
                    "models",
                    "AddArguments",
                    "add",
                ),
                "remove": Command(
                    "Remove a model and its files, unless another was made from it.",
                    "models",
                    "RemoveArguments",
                    "remove",
                ),
            },
        ),
        "data": Group(
            "Data of your own: import files, and choose what the loop uses.",
            {
                "import": Command(
                    "Import a file: good rows are kept, bad ones are listed with what is wrong.",
                    "data",
                    "ImportArguments",
                    "import_data",
                ),
                "list": Command(
                    "List the data sets of the workspace, and which of them the loop uses.",
                    "data",
                    "ListArguments",
                    "list_data",
                ),
                "show": Command(
                    "Show one data set: first rows, origin, licence, and which rows were refused.",
                    "data",
                    "ShowArguments",
                    "show_data",
                ),
                "use": Command(
                    "Choose which data sets the loop uses: your own, the starter set, or both.",
                    "data",
                    "UseArguments",
                    "use",
                ),
            },
        ),
        "runs": Group(
            "Everything that was executed, to be read, stopped and continued.",
            {
                "list": Command(
                    "List the runs, newest first: what was executed, when, and what came of it.",
                    "runs",
                    "ListArguments",
                    "list_runs",
                ),
                "show": Command(
                    "Show one run: inputs, outputs, knobs, versions, time, memory, progress.",
                    "runs",
                    "ShowArguments",
                    "show",
                ),
                "stop": Command(
                    "Stop a run at its next safe point; what it did is kept.",
                    "runs",
                    "StopArguments",
                    "stop",
                ),
                "resume": Command(
                    "Go on with a run that was stopped or failed, from where it was.",
                    "runs",
                    "ResumeArguments",
                    "resume",
                ),
                "pack": Command(
                    "Pack one training run into a file, to go on with it on another machine.",
                    "parcels",
                    "PackArguments",
                    "pack",
                ),
                "import": Command(
                    "Bring in a run that was packed elsewhere, every hash of it checked.",
                    "parcels",
                    "ImportArguments",
                    "import_run",
                ),
            },
        ),
    },
    "Its steps, by hand": {
        "pretrain": Command(
            "Teach a language on plain text: a new base model, or one that goes on learning.",
            "pretrain",
            "PretrainArguments",
        ),
        "finetune": Command(
            "Teach a base model to reply, by demonstrations: this makes version 1.",
            "training",
            "FinetuneArguments",
            "finetune",
        ),
        "align": Command(
            "Improve a version by what people preferred: this makes the next version.",
            "training",
            "AlignArguments",
            "align",
        ),
        "reward": Command(
            "Train a model that predicts which reply people choose, and measure how often.",
            "training",
            "RewardArguments",
            "reward",
        ),
        "compare": Command(
            "Measure models side by side, with 95 % intervals, and write a report.",
            "training",
            "CompareArguments",
            "compare",
        ),
        "export": Command(
            "Write a model out for other programs, load it back, check its replies.",
            "export",
            "ExportArguments",
        ),
    },
    "For programs": {
        "serve": Command(
            "Serve all models of the library at an OpenAI-compatible address, until Ctrl-C.",
            "serve",
            "ServeArguments",
        ),
        "worker": Command(
            "Take queued runs one at a time; amenable start has one already.",
            "worker",
            "WorkerArguments",
        ),
        "env": Command(
            "Show versions, machine and workspace, to be sent along with a bug report.",
            "env",
            "EnvArguments",
        ),
    },
}

ALL: Mapping[str, Command | Group] = {
    name: each for part in COMMANDS.values() for name, each in part.items()
}
