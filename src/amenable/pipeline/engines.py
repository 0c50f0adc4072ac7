"""Names of the library to a local engine: each backbone is loaded once, its adapters beside it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

from amenable.chat.template import FORMS
from amenable.generation.local import LocalEngine, Speaker
from amenable.generation.remote import RemoteEngine
from amenable.generation.routed import Place, RoutedEngine
from amenable.models.load import NO_MARKERS
from amenable.models.policy import Policy
from amenable.records.errors import ModelError
from amenable.records.guest import Guest
from amenable.records.sample import ModelRef
from amenable.store import library
from amenable.store.tables import ModelRow
from amenable.store.workspace import Workspace

GUEST_KEY = "AMENABLE_GUEST_KEY"
"""The environment variable with the key that a guest's address asks for, if it does."""
HELPED = " (helped)"
"""A base, shown three examples: the same weights under a second name."""


def split_helped(name: str) -> tuple[str, bool]:
    """The library's name, and whether the helped form of it is meant.

    >>> split_helped("gemma-3-270m (helped)")
    ('gemma-3-270m', True)
    """
    return name.removesuffix(HELPED), name.endswith(HELPED)


class EngineRoom:
    """Loads what is asked for, once, and keeps it: the serving process lives with one of these."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._policies: dict[str, Policy] = {}
        self._speakers: dict[str, Speaker] = {}
        self._loading = Lock()
        self.engine = LocalEngine({})

    def have(self, names: Sequence[str]) -> LocalEngine:
        """The engine, with these models in it."""
        with self._loading:
            missing = [name for name in names if name not in self._speakers]
            for name in missing:
                self._speakers[name] = self._speaker(name)
            if missing:
                self.engine.replace_speakers(self._speakers)
        return self.engine

    def engine_of(self, name: str) -> LocalEngine:
        return self.have([name])

    def listed(self) -> list[ModelRef]:
        """All models of the library, a base under both of its names; none is loaded for it."""
        with self._workspace.database.read() as session:
            rows = library.models(session)
        helped = [
            ModelRef(row.name + HELPED, row.sha256) for row in rows if row.chat_form == "plain"
        ]
        return [*(ModelRef(row.name, row.sha256) for row in rows), *helped]

    def _speaker(self, name: str) -> Speaker:
        library_name, is_helped = split_helped(name)
        row = self._row(library_name)
        adapter = None
        if _is_adapter(self._folder(row)) and row.base is not None:
            base = self._row(row.base)
            _check_base(Policy.read_info(self._folder(row)), row.name, base)
            policy = self._policy(base)
            adapter = row.name
            if adapter not in policy.adapters.shapes:
                with self.engine.nobody_speaks():
                    policy.adapters.load(adapter, self._folder(row))
                    policy.adapters.fold(adapter)
        else:
            policy = self._policy(row)
        form = "helped" if is_helped else row.chat_form
        ref = ModelRef(name, row.sha256)
        return Speaker(ref, policy, adapter, policy.encoder(form))

    def _row(self, name: str) -> ModelRow:
        with self._workspace.database.read() as session:
            return library.model(session, name)

    def _policy(self, row: ModelRow) -> Policy:
        if row.name not in self._policies:
            self._policies[row.name] = Policy.load(self._folder(row))
        return self._policies[row.name]

    def _folder(self, row: ModelRow) -> Path:
        return self._workspace.folder / row.folder


def _check_base(info: Mapping[str, object], name: str, base: ModelRow) -> None:
    """Another base of the same shapes would take the adapter without a word, and speak badly."""
    if info.get("base_sha256", base.sha256) != base.sha256:
        raise ModelError(
            f"{name} was trained on other weights than those of {base.name} that are here now."
        )


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def open_engine(workspace: Workspace, names: Sequence[str]) -> LocalEngine:
    """An engine with these models, for one run."""
    return EngineRoom(workspace).have(names)


class HouseAndGuests(RoutedEngine):
    """Models of the library beside guests, who only talk: plain text is read by our own alone."""

    def __init__(self, workspace: Workspace, names: Sequence[str]) -> None:
        guests = {name: guest for name in names if (guest := Guest.parse(name)) is not None}
        self._own = open_engine(workspace, [name for name in names if name not in guests])
        key = os.environ.get(GUEST_KEY, "")
        places = {ref.name: Place(self._own, ref.name) for ref in self._own.models()}
        self._remote = {name: RemoteEngine(guest.address, key) for name, guest in guests.items()}
        places |= {name: Place(self._remote[name], guest.model) for name, guest in guests.items()}
        super().__init__(places)

    def close(self) -> None:
        for engine in self._remote.values():
            engine.close()

    def text_log_probs(self, model: str, texts: Sequence[str]) -> list[tuple[float, int]]:
        return [] if Guest.parse(model) else self._own.text_log_probs(model, texts)


def family_form(folder: Path) -> str:
    """The chat form in which a base's children are trained and served; never a bare base's own."""
    form = str(Policy.read_info(folder).get("family_form", NO_MARKERS))
    return form if form in FORMS and form != "plain" else NO_MARKERS
