"""The command line: finds the command, runs it, and says in one line what a person did wrong."""

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from amenable.apps.cli.out import Out, UsageError
from amenable.apps.cli.table import ALL, COMMANDS, Command, Group
from amenable.records.errors import AmenableError
from amenable.store.artifacts import is_disk_full

PROGRAM = "amenable"
HELP = ("-h", "--help")
MISTAKE, INTERRUPTED, CLOSED = 2, 130, 141
ABOUT = "Turn a base language model into an instruct model with feedback from your own people."
NAME_WIDTH = 10
ENVIRONMENT = {
    # Large pages for weights: torch reads this once, when it is imported.
    "THP_MEM_ALLOC_ENABLE": "1",
    # Threads that wait for each other spin only shortly: training and chat share the same cores.
    "GOMP_SPINCOUNT": "10000",
    # We show how far things are ourselves.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    # What fails is said in one line of ours.
    "HF_HUB_VERBOSITY": "error",
}


def main(words: Sequence[str] | None = None) -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message).300s")
    # PEFT imports it, and it names kernels that it could fetch: nothing here uses them.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    sys.exit(status_of(sys.argv[1:] if words is None else words))


def status_of(words: Sequence[str]) -> int:
    """Do what the words say; 0, 2 for a mistake, 130 after Ctrl-C. A bug keeps its traceback."""
    try:
        _dispatch(words)
        sys.stdout.flush()
    except AmenableError as error:
        return _complain(str(error), MISTAKE)
    except KeyboardInterrupt as error:
        return _complain(str(error) or "Stopped; what was done is kept.", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our words has left; without this Python complains once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except Exception as error:
        if is_disk_full(error):
            return _complain("The disk is full. Free some room, then repeat.", MISTAKE)
        if isinstance(error, OSError) and error.filename is not None:
            return _complain(f"{error.filename}: {error.strerror}.", MISTAKE)
        raise
    return 0


def _complain(message: str, status: int) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return status


def _dispatch(words: Sequence[str]) -> None:
    name, *rest = words or ["--help"]
    if name in HELP:
        print(overview())
    elif name == "--version":
        from importlib import metadata

        print(f"{PROGRAM} {metadata.version(PROGRAM)}")
    else:
        _enter(_found(name, ALL, PROGRAM), rest, f"{PROGRAM} {name}")


def _enter(entry: Command | Group, words: Sequence[str], prog: str) -> None:
    if isinstance(entry, Command):
        _execute(entry, words, prog)
        return
    name, *rest = words or ["--help"]
    if name in HELP:
        print(_page(prog, entry.sentence, {"Commands": entry.commands}))
    else:
        _enter(_found(name, entry.commands, prog), rest, f"{prog} {name}")


def _found(name: str, known: Any, prog: str) -> Command | Group:
    if name in known:
        return known[name]
    if name.startswith("-"):
        raise UsageError(f"Name a command before its options: {prog} COMMAND. See {prog} --help.")
    import difflib

    near = difflib.get_close_matches(name, list(known), n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(f"There is no command {name!r}.{meant} See {prog} --help.")


def _execute(command: Command, words: Sequence[str], prog: str) -> None:
    from amenable.apps.cli.usage import parse

    arguments = parse(command.arguments(), words, prog=prog, about=command.sentence)
    is_json = bool(getattr(arguments, "json", False))
    stdout, out = sys.stdout, Out(is_json=is_json)
    if not is_json:
        command.run(arguments, out)
        return
    with redirect_stdout(sys.stderr):  # a library that prints must not spoil the one object
        value = command.run(arguments, out)
    print(json.dumps(value, ensure_ascii=False), file=stdout, flush=True)


def overview() -> str:
    """The page of `amenable --help`."""
    first = f"Begin with:  {PROGRAM} start\nMore on one: {PROGRAM} COMMAND --help"
    return f"{_page(PROGRAM, ABOUT, COMMANDS)}\n\n{first}"


def _page(prog: str, about: str, parts: Any) -> str:
    lines = [f"usage: {prog} COMMAND [OPTIONS]", "", about]
    for title, commands in parts.items():
        lines += ["", title]
        lines += [f"  {name:<{NAME_WIDTH}}{each.sentence}" for name, each in commands.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
