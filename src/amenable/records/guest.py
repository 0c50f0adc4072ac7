"""A model that others serve: its name, and the OpenAI-compatible address it answers at."""

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from amenable.records.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Guest:
    """Written NAME@ADDRESS wherever the name of a model is asked for.

    >>> Guest.parse("llama3.2:1b@http://127.0.0.1:11434/v1")
    Guest(model='llama3.2:1b', address='http://127.0.0.1:11434')
    """

    model: str
    address: str

    @classmethod
    def parse(cls, name: str) -> "Guest | None":
        """None for a name of the library, which holds no address."""
        found = re.fullmatch(r"(.*)@(\w+://.*)", name)
        if found is None:
            return None
        model, address = found.groups()
        parts = _split(address)
        if not model or parts is None:
            raise ConfigError("the guest", f"{model}@…", must="be written NAME@http://ADDRESS")
        if parts.username or parts.query or parts.fragment or "," in name:
            must = "hold no key, comma or query; the key goes into AMENABLE_GUEST_KEY"
            raise ConfigError("the guest", f"{model}@{parts.hostname}", must=must)
        return cls(model, address.rstrip("/").removesuffix("/v1"))


def _split(address: str) -> SplitResult | None:
    """None where nobody can be asked: no web address, no host, or a port that is none."""
    try:
        parts = urlsplit(address)
        can_be_asked = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if can_be_asked else None
