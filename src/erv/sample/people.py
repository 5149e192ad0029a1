"""The people of the sample corpus: skin, hair, eyes, proportions, clothes and background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Color = tuple[int, int, int]

_SKINS = ((255, 224, 196), (241, 194, 158), (224, 172, 128), (198, 134, 92), (150, 98, 66), (110, 72, 50))
_HAIRS = (
    (36, 26, 22),
    (74, 48, 32),
    (120, 76, 40),
    (176, 128, 66),
    (214, 176, 110),
    (150, 62, 34),
    (150, 150, 152),
)
_DARK_HAIRS = ((24, 18, 16), (44, 30, 24), (62, 42, 30), (128, 126, 126))
_IRISES = ((86, 56, 34), (60, 92, 130), (70, 110, 70), (50, 40, 34), (110, 120, 128))
_CLOTHES = (
    (58, 84, 128),
    (132, 52, 58),
    (60, 104, 84),
    (84, 78, 96),
    (190, 178, 160),
    (40, 44, 54),
    (176, 122, 60),
)
_WALLS = (
    (196, 206, 214),
    (214, 202, 184),
    (176, 190, 176),
    (188, 178, 198),
    (120, 134, 150),
    (150, 132, 116),
)


@dataclass(frozen=True)
class Person:
    """Who is on screen; drawn once per clip."""

    skin: Color
    hair: Color
    iris: Color
    clothes: Color
    wall: Color
    style: int  # 0 short, 1 parted, 2 long, 3 bun, 4 bald
    width: float
    jaw: float
    eye_gap: float
    eye_size: float
    brow: float
    nose: float
    mouth: float
    lip_red: float
    beard: int  # 0 none, 1 full, 2 moustache
    glasses: bool
    feminine: bool


def draw_person(rng: np.random.Generator) -> Person:
    """Draws the looks of a person."""
    feminine = bool(rng.random() < 0.5)
    style = int(rng.choice([1, 2, 2, 3] if feminine else [0, 0, 1, 4]))
    beard = 0 if feminine else int(rng.choice([0, 0, 0, 1, 2]))
    values = rng.uniform(-1.0, 1.0, size=7)

    def pick(colors: tuple[Color, ...]) -> Color:
        base = np.array(colors[int(rng.integers(len(colors)))]) * rng.uniform(0.92, 1.06)
        red, green, blue = (int(v) for v in np.clip(base + rng.integers(-4, 5, size=3), 0, 255))
        return red, green, blue

    skin = pick(_SKINS)
    return Person(
        skin=skin,
        hair=pick(_HAIRS if sum(skin) > 480 else _DARK_HAIRS),
        iris=pick(_IRISES),
        clothes=pick(_CLOTHES),
        wall=pick(_WALLS),
        style=style,
        width=1.0 + 0.06 * values[0],
        jaw=0.72 + 0.1 * values[1] - (0.05 if feminine else -0.03),
        eye_gap=0.43 + 0.03 * values[2],
        eye_size=0.225 + 0.02 * values[3],
        brow=(0.055 if feminine else 0.08) + 0.012 * values[4],
        nose=0.42 + 0.04 * values[5],
        mouth=0.38 + 0.03 * values[6],
        lip_red=float(rng.uniform(0.25, 0.6) if feminine else rng.uniform(0.12, 0.3)),
        beard=beard,
        glasses=bool(rng.random() < 0.15),
        feminine=feminine,
    )
