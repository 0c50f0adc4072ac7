"""The colours can be read, and the two voices stay apart for eyes that see fewer colours."""

import re
from importlib.resources import files
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

Colour = NDArray[np.float64]
SHEET = (files("amenable.apps.web") / "static/css/tokens.css").read_text("utf-8")
TOKENS: dict[str, dict[str, str]] = {
    str(name): {"light": str(light), "dark": str(dark)}
    for name, light, dark in re.findall(r"--([a-z-]+): light-dark\((#\w{6}), (#\w{6})\)", SHEET)
}
SCHEMES = ("light", "dark")
TEXTS = ("ink", "ink-soft", "base", "instruct", "people", "stop")
GROUNDS = ("paper", "sheet", "sunken")
# Linear RGB as seen without one kind of cone: Machado, Oliveira and Fernandes (2009), severity 1.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
) / np.array([[0.9505], [1.0], [1.089]])


def linear(name: str, scheme: str) -> Colour:
    digits = TOKENS[name][scheme][1:]
    sent = np.array([int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)])
    return np.where(sent <= 0.04045, sent / 12.92, ((sent + 0.055) / 1.055) ** 2.4)


def contrast(first: Colour, second: Colour) -> float:
    """WCAG 2: the ratio of relative luminances."""
    lights = sorted(float(each @ [0.2126, 0.7152, 0.0722]) for each in (first, second))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def distance(first: Colour, second: Colour) -> float:
    """CIE 1976: about 2 can just be seen."""
    return float(np.linalg.norm(lab(first) - lab(second)))


def lab(colour: Colour) -> Colour:
    xyz = TO_XYZ @ np.clip(colour, 0, 1)
    bent = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * bent[1] - 16, 500 * (bent[0] - bent[1]), 200 * (bent[1] - bent[2])])


@pytest.mark.parametrize(("text", "ground", "scheme"), list(product(TEXTS, GROUNDS, SCHEMES)))
def test_text_can_be_read_on_every_ground(text: str, ground: str, scheme: str):
    assert contrast(linear(text, scheme), linear(ground, scheme)) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("voice", ["base", "instruct", "people", "stop"])
def test_a_voice_can_be_read_on_its_own_wash(voice: str, scheme: str):
    wash = linear(f"{voice}-wash", scheme)
    assert contrast(linear(voice, scheme), wash) >= 4.5
    assert contrast(linear("ink", scheme), wash) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("text", "ground"), [("on-ink", "ink"), ("on-instruct", "instruct")])
def test_text_on_filled_marks_can_be_read(text: str, ground: str, scheme: str):
    assert contrast(linear(text, scheme), linear(ground, scheme)) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_faint_marks_can_be_seen(scheme: str):
    assert contrast(linear("ink-faint", scheme), linear("paper", scheme)) >= 3


@pytest.mark.parametrize(("blindness", "scheme"), list(product(BLINDNESS, SCHEMES)))
def test_base_and_instruct_stay_apart_for_every_kind_of_eye(blindness: str, scheme: str):
    seen = np.array(BLINDNESS[blindness])
    base, instruct = (seen @ linear(name, scheme) for name in ("base", "instruct"))

    assert distance(base, instruct) > 20
