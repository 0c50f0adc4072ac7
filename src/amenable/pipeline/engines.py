"""Names of the library to a local engine: each base once, the layers of its versions beside it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

from amenable.chat.template import FORMS
from amenable.evaluation.model_spec import HELPED_SUFFIX
from amenable.generation.engine import Request
from amenable.generation.local import LocalEngine, Speaker
from amenable.generation.remote import RemoteEngine
from amenable.generation.routed import Place, RoutedEngine
from amenable.models.load import NO_MARKERS
from amenable.models.policy import Policy
from amenable.records.errors import ModelError, NotFoundError
from amenable.records.guest import Guest
from amenable.records.sample import ModelRef
from amenable.store import library
from amenable.store.library import REWARD
from amenable.store.tables import ModelRow
from amenable.store.workspace import Workspace

GUEST_KEY = "AMENABLE_GUEST_KEY"
"""The environment variable with the key that a guest's address asks for, if it does."""


def split_helped(name: str) -> tuple[str, bool]:
    """The library's name, and whether the helped form of it is meant.

    >>> split_helped("gemma-3-270m (helped)")
    ('gemma-3-270m', True)
    """
    return name.removesuffix(HELPED_SUFFIX), name.endswith(HELPED_SUFFIX)


class EngineRoom:
    """Loads what is asked for, once, and keeps it: the serving process lives with one of these.

    What was removed from the library since, or made anew under the same name, is dropped.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._policies: dict[ModelRef, Policy] = {}
        self._speakers: dict[str, Speaker] = {}
        self._loading = Lock()
        self.engine = LocalEngine({})

    def have(self, names: Sequence[str]) -> LocalEngine:
        """The engine, with these models in it as they are in the library now."""
        with self._loading:
            rows = self._rows()
            self._drop_what_changed(rows)
            missing = [name for name in names if name not in self._speakers]
            for name in missing:
                self._speakers[name] = self._speaker(name, rows)
            if missing:
                self.engine.replace_speakers(self._speakers)
        return self.engine

    def engine_of(self, name: str) -> LocalEngine:
        return self.have([name])

    def listed(self) -> list[ModelRef]:
        """All that reply, a base under both of its names; none is loaded for it."""
        rows = [row for row in self._rows().values() if row.kind != REWARD]
        helped = [
            ModelRef(row.name + HELPED_SUFFIX, row.sha256)
            for row in rows
            if row.chat_form == "plain"
        ]
        return [*map(_ref, rows), *helped]

    def _rows(self) -> dict[str, ModelRow]:
        with self._workspace.database.read() as session:
            return {row.name: row for row in library.models(session)}

    def _drop_what_changed(self, rows: Mapping[str, ModelRow]) -> None:
        refs = {_ref(row) for row in rows.values()}
        policies = {ref: policy for ref, policy in self._policies.items() if ref in refs}
        kept = {
            name: speaker
            for name, speaker in self._speakers.items()
            if ModelRef(split_helped(name)[0], speaker.ref.sha256) in refs
            and any(speaker.policy is policy for policy in policies.values())
        }
        gone = [speaker for name, speaker in self._speakers.items() if name not in kept]
        self._policies, self._speakers = policies, kept
        if not gone:
            return
        with self.engine.nobody_speaks():
            self.engine.replace_speakers(kept)
            for speaker in gone:
                adapters = speaker.policy.adapters
                if speaker.adapter is not None and speaker.adapter in adapters.shapes:
                    adapters.remove(speaker.adapter)

    def _speaker(self, name: str, rows: Mapping[str, ModelRow]) -> Speaker:
        library_name, is_helped = split_helped(name)
        row = library.that_speaks(_row(rows, library_name))
        adapter = None
        if _is_adapter(self._folder(row)) and row.base is not None:
            base = _row(rows, row.base)
            check_base(Policy.read_info(self._folder(row)), row.name, base)
            policy = self._policy(base)
            adapter = _adapter_name(row)
            if adapter not in policy.adapters.shapes:
                with self.engine.nobody_speaks():
                    policy.adapters.load(adapter, self._folder(row))
                    policy.adapters.fold(adapter)
        else:
            policy = self._policy(row)
        form = "helped" if is_helped else row.chat_form
        ref = ModelRef(name, row.sha256)
        return Speaker(ref, policy, adapter, policy.encoder(form))

    def _policy(self, row: ModelRow) -> Policy:
        ref = _ref(row)
        if ref not in self._policies:
            self._policies[ref] = load_policy(self._folder(row), row)
        return self._policies[ref]

    def _folder(self, row: ModelRow) -> Path:
        return self._workspace.folder / row.folder


def _ref(row: ModelRow) -> ModelRef:
    return ModelRef(row.name, row.sha256)


def _row(rows: Mapping[str, ModelRow], name: str) -> ModelRow:
    if name not in rows:
        raise NotFoundError("model", name, known=rows)
    return rows[name]


def _adapter_name(row: ModelRow) -> str:
    """With its content: a reply under way must not go on with other weights of the same name."""
    return f"{row.name} ({row.sha256[:12]})"


def load_policy(folder: Path, row: ModelRow, *, in_four_bits: bool = False) -> Policy:
    """The model in `folder`; where it cannot be read, how to get it back."""
    try:
        return Policy.load(folder, in_four_bits=in_four_bits)
    except ModelError as error:
        if library.is_made_here(row):
            raise
        raise ModelError(f"{error} To bring it anew: amenable models add {row.name}") from error


def check_base(info: Mapping[str, object], name: str, base: ModelRow) -> None:
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

    def fits(self, request: Request) -> bool:
        """As the local engine says; how much a guest has room for is not known here."""
        return Guest.parse(request.model) is not None or self._own.fits(request)

    def text_log_probs(self, model: str, texts: Sequence[str]) -> list[tuple[float, int]]:
        return [] if Guest.parse(model) else self._own.text_log_probs(model, texts)


def family_form(folder: Path) -> str:
    """The chat form in which a base's children are trained and served; never a bare base's own."""
    form = str(Policy.read_info(folder).get("family_form", NO_MARKERS))
    return form if form in FORMS and form != "plain" else NO_MARKERS
