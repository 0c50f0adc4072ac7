"""Names of guests: what is one, what is none, and what is refused."""

import pytest

from amenable.records.errors import ConfigError
from amenable.records.guest import Guest


@pytest.mark.parametrize(
    ("name", "model", "address"),
    [
        ("m@http://127.0.0.1:11434", "m", "http://127.0.0.1:11434"),
        ("m@http://127.0.0.1:11434/v1/", "m", "http://127.0.0.1:11434"),
        ("org/m:1b@https://host/base/v1", "org/m:1b", "https://host/base"),
        ("a@b@https://host", "a@b", "https://host"),
    ],
)
def test_a_guest_is_a_name_and_an_address(name: str, model: str, address: str):
    assert Guest.parse(name) == Guest(model, address)


@pytest.mark.parametrize("name", ["gemma-3-270m", "gemma (helped)", "me@home", ""])
def test_names_of_the_library_are_no_guests(name: str):
    assert Guest.parse(name) is None


@pytest.mark.parametrize(
    "name", ["@http://host", "m@ftp://host", "m@http://", "m@http://u:k@host", "a,b@http://host",
             "m@http://host?key=1", "m@http://[::1:11434", "m@http://host:port",
             "m@http://host:70000", "m@http://host:0"],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(name: str):
    with pytest.raises(ConfigError):
        Guest.parse(name)


def test_a_key_in_an_address_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        Guest.parse("m@http://user:secret@host")
    assert "secret" not in str(caught.value)
