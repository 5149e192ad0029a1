"""The drawn face of the sample corpus: varied people whose facial action units move.

A face is drawn in its own units (half-width 1, y downwards) at a multiple of the final size and scaled down,
which anti-aliases it. Action units (FACS) displace brows, lids, nose, lips and jaw. They are exaggerated, as
in a caricature, to remain visible at 64x64 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from erv.sample.people import Color, Person

Points = np.ndarray

SIZE = 160
_SUPERSAMPLING = 2
_UNIT = 52.0  # pixels of the final frame per face unit


@dataclass(frozen=True)
class Pose:
    """Head and eyes in one frame: shift in pixels, tilt in radians, yaw and pitch in face units."""

    x: float = 0.0
    y: float = 0.0
    tilt: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    scale: float = 1.0
    gaze: float = 0.0
    blink: float = 0.0  # 0 open .. 1 shut
    speech: float = 0.0  # 0 shut .. 1 wide, from the loudness of the voice
    side: int = 1  # where one-sided units act


class FaceRenderer:
    """Draws one person frame by frame.

    Args:
        person: who.
        rng: draws the background and the light, once.
    """

    def __init__(self, person: Person, rng: np.random.Generator) -> None:
        self._person = person
        self._background = _background(person, rng)
        side = float(rng.uniform(-0.16, 0.16))
        across = np.linspace(-1.0, 1.0, SIZE)
        light = 1.0 + side * across[None, :] - 0.08 * across[:, None] ** 2
        self._light = np.repeat(light[:, :, None].astype(np.float32), 3, axis=2)

    def frame(self, units: Mapping[int, float], pose: Pose) -> np.ndarray:
        """One frame.

        Args:
            units: action unit -> intensity 0..1; -12 and -2 are units 12 and 2 acting on one side only.
            pose: head and eyes.

        Returns:
            uint8 RGB [160, 160, 3].
        """
        image = self._background.copy()
        _Face(ImageDraw.Draw(image), self._person, dict(units), pose).draw()
        lit = np.asarray(image.reduce(_SUPERSAMPLING), np.float32) * self._light
        drawn: np.ndarray = np.minimum(lit, 255, out=lit).astype(np.uint8)
        return drawn


class _Face:
    """The strokes of one frame."""

    def __init__(
        self, canvas: ImageDraw.ImageDraw, person: Person, units: dict[int, float], pose: Pose
    ) -> None:
        self.canvas, self.person, self.pose, self.units = canvas, person, pose, units
        self.shade = _mix(person.skin, (60, 20, 10), 0.3)
        self.line = _mix(person.skin, (30, 10, 8), 0.62)
        cos, sin = np.cos(pose.tilt), np.sin(pose.tilt)
        unit = _UNIT * pose.scale * _SUPERSAMPLING
        self._shift = np.array([pose.yaw, pose.pitch])
        self._stretch = np.array([person.width, 1.0])
        self._turn = np.array([[cos, sin], [-sin, cos]]) * unit
        self._origin = np.array([SIZE / 2 + pose.x, SIZE * 0.53 + pose.y]) * _SUPERSAMPLING
        self._unit = unit

    def au(self, number: int) -> float:
        return self.units.get(number, 0.0)

    def draw(self) -> None:
        self._body()
        self._head()
        for side in (-1, 1):
            self._eye(side)
            self._brow(side)
        self._nose()
        self._mouth()
        self._hair_front()

    def _pixels(self, points: Points, depth: float = 0.0) -> list[float]:
        """Face units to canvas pixels, alternating x and y; `depth` moves features more than the outline."""
        moved = points + self._shift * depth
        placed = (moved * self._stretch) @ self._turn + self._origin
        flat: list[float] = placed.ravel().tolist()
        return flat

    def _fill(self, points: Points, color: Color, depth: float = 1.0) -> None:
        self.canvas.polygon(self._pixels(points, depth), fill=color)

    def _stroke(self, points: Points, color: Color, width: float, depth: float = 1.0) -> None:
        pixels = max(1, round(width * self._unit))
        self.canvas.line(self._pixels(points, depth), fill=color, width=pixels, joint="curve")

    def _disc(self, x: float, y: float, radius: float, color: Color, depth: float = 1.0) -> None:
        self._fill(_ellipse(x, y, radius, radius, 20), color, depth)

    def _body(self) -> None:
        person = self.person
        if person.style == 2:
            self._fill(_ellipse(0, 0.15, 1.22, 1.5, 32), _mix(person.hair, (0, 0, 0), 0.25), 0.0)
        if person.style == 3:
            self._fill(_ellipse(0, -1.38, 0.45, 0.38, 24), person.hair, 0.0)
        neck = np.array([[-0.45, 0.7], [0.45, 0.7], [0.52, 1.75], [-0.52, 1.75]])
        self._fill(neck, _mix(person.skin, (40, 10, 0), 0.25), 0.0)
        collar = np.array(
            [[-0.55, 1.5], [0, 1.72], [0.55, 1.5], [1.5, 1.75], [2.4, 2.6], [-2.4, 2.6], [-1.5, 1.75]]
        )
        self._fill(collar, person.clothes, 0.0)

    def _head(self) -> None:
        person, drop = self.person, 0.14 * self.au(26)
        for side in (-1, 1):
            self._fill(_ellipse(side * 1.0, 0.02, 0.14, 0.24, 16), self.shade, 0.0)
        across, down = _circle(48)
        x, y = down, -across
        narrowing = np.where(y > 0, 1.0 - (1.0 - person.jaw) * np.clip(y, 0, 1) ** 2, 1.0)
        outline = _curve(x * narrowing, np.where(y > 0, y * (1.27 + drop), y * 1.3))
        if person.style != 4:
            scalp = outline[outline[:, 1] < 0.12]
            scalp = scalp[np.argsort(scalp[:, 0])] * [1.06, 1.05] - [0, 0.05]
            self._fill(scalp, person.hair, 0.0)
        lower = outline[(outline[:, 1] > -0.2)]
        self._fill(outline if person.style == 4 else outline * [1.0, 0.97] + [0, 0.02], person.skin, 0.15)
        blush = _mix(person.skin, (220, 80, 70), 0.10 + 0.12 * self.au(6))
        for side in (-1, 1):
            self._fill(_ellipse(side * 0.58, 0.34 - 0.06 * self.au(6), 0.24, 0.17, 20), blush)
        if person.beard == 1:
            beard = lower[lower[:, 1] > 0.2]
            across = _steps(0.9, -0.9, 15)
            inner = _curve(across, 0.52 - 0.16 * np.abs(across / 0.9) ** 6 - 0.03 * np.cos(9 * across))
            shape = np.concatenate([beard[np.argsort(beard[:, 0])], inner])
            self._fill(shape * [0.985, 0.99], _mix(person.hair, person.skin, 0.35), 0.2)
        raised = max(self.au(1), self.au(2))
        if raised > 0.25:  # the frontalis folds the forehead
            across = _steps(-0.5, 0.5, 9)
            for row in (-0.78, -0.92):
                fold = _curve(across, row - 0.05 * raised + 0.1 * across**2)
                self._stroke(fold, _mix(person.skin, self.shade, raised), 0.025)

    def _hair_front(self) -> None:
        person = self.person
        if person.style == 4:
            return
        angle = _steps(-np.pi * 0.5, np.pi * 0.5, 25)
        top = _curve(np.sin(angle) * 1.07, -0.1 - np.cos(angle) * 1.3)
        x = top[::-1, 0]
        hairline = {
            0: -0.98 + 0.3 * x**4,
            1: -1.0 + 0.28 * (x + 0.35) ** 2,
            2: -1.02 + 0.55 * np.abs(x) ** 2.5,
            3: -1.02 + 0.35 * x**4,
        }[person.style]
        lower = _curve(x * 0.98, np.minimum(hairline, -0.1))
        self._fill(np.concatenate([top, lower]), person.hair, 0.1)
        if person.style == 2:
            for side in (-1, 1):
                strand = np.array(
                    [[0.98, -0.75], [1.22, 0.2], [1.2, 1.35], [0.86, 1.3], [0.93, 0.2], [0.86, -0.5]]
                )
                self._fill(strand * [side, 1.0], person.hair, 0.05)

    def _brow(self, side: int) -> None:
        au, person = self.au, self.person
        lowering = au(4) * (1.0 - 0.65 * au(1)) + 0.5 * au(9)
        cocked = au(-2) * (1.0 if side == self.pose.side else -0.35)
        inner_y = -0.45 - 0.24 * au(1) + 0.17 * lowering - 0.14 * cocked
        outer_y = -0.42 - 0.24 * au(2) + 0.03 * lowering - 0.26 * cocked
        inner_x = 0.18 - 0.08 * au(4)
        middle_y = (inner_y + outer_y) / 2 - 0.07 - 0.04 * au(2) + 0.05 * lowering
        along = _steps(0, 1, 9)
        x = inner_x + (0.74 - inner_x) * along
        y = (1 - along) ** 2 * inner_y + 2 * along * (1 - along) * middle_y + along**2 * outer_y
        half = person.brow * (1.0 - 0.55 * along)
        shape = np.concatenate([_curve(x, y - half), _curve(x, y + half)[::-1]])
        self._fill(shape * [side, 1.0], _mix(person.hair, (20, 12, 10), 0.45))
        if au(4) > 0.25:  # the corrugator's furrow
            furrow = np.array([[0.07, inner_y - 0.05], [0.06, inner_y + 0.2]]) * [side, 1.0]
            self._stroke(furrow, _mix(person.skin, self.line, au(4)), 0.03)

    def _eye(self, side: int) -> None:
        au, person, pose = self.au, self.person, self.pose
        x0, y0, half = side * person.eye_gap, -0.1, person.eye_size
        u = _steps(-1, 1, 13)
        arch = 1.0 - u**2
        droop = 0.55 * au(64)
        upper = 0.5 + 0.42 * au(5) - 0.12 * au(7) - 0.18 * au(6) - droop + 0.08 * au(1) - 0.1 * au(9)
        lower = 0.42 + 0.12 * au(5) - 0.36 * au(7) - 0.34 * au(6) - 0.15 * au(9)
        upper = max(upper * (1 - pose.blink), -0.25 * pose.blink)
        lower = max(lower, 0.06)
        x = x0 + half * u
        top = y0 - half * max(upper, -0.05) * arch * 1.15
        bottom = y0 + half * lower * arch * (1.0 if au(6) < 0.3 else 0.8)
        bottom = np.maximum(bottom, top + 0.005)
        opening = np.concatenate([_curve(x, top), _curve(x, bottom)[::-1]])
        if pose.blink < 0.85:
            self._fill(opening, (246, 244, 240))
            gaze_x, gaze_y = x0 + 0.06 * pose.gaze, y0 - 0.02 + 0.12 * au(64)
            self._disc(gaze_x, gaze_y, half * 0.52, person.iris)
            self._disc(gaze_x, gaze_y, half * 0.27, (14, 10, 10))
            self._disc(gaze_x - 0.04, gaze_y - 0.05, half * 0.12, (255, 255, 255))
        # Lids of skin cut the iris to the opening.
        brow_y, cheek_y = y0 - 0.29, y0 + 0.27
        lid = np.concatenate([_curve(x, top), [[x0 + half, brow_y + 0.06], [x0 - half, brow_y + 0.06]]])
        self._fill(lid, _mix(person.skin, self.shade, 0.22))
        below = np.concatenate([_curve(x, bottom), [[x0 + half, cheek_y], [x0 - half, cheek_y]]])
        self._fill(below, person.skin)
        self._stroke(_curve(x, top), (34, 22, 20), 0.05 if person.feminine else 0.035)
        self._stroke(_curve(x, bottom), self.line, 0.018)
        if au(6) > 0.25:  # crow's feet
            for rise in (-0.1, 0.0, 0.1):
                foot = np.array([[half + 0.05, 0.02], [half + 0.2, rise + 0.02]]) * [side, 1.0] + [x0, y0]
                self._stroke(foot, _mix(person.skin, self.line, au(6)), 0.022)
        if person.glasses:
            ring = _ellipse(x0, y0, 0.33, 0.27, 28)
            self._stroke(np.concatenate([ring, ring[:1]]), (40, 36, 40), 0.03)
            self._stroke(np.array([[side * 0.1, y0], [0.0, y0 - 0.04]]), (40, 36, 40), 0.03)

    def _nose(self) -> None:
        au, person = self.au, self.person
        lift = 0.08 * au(9) + 0.04 * au(10)
        tip = person.nose - lift
        bridge = np.array([[0.09, -0.12], [0.11, tip - 0.15], [0.17, tip - 0.05]])
        self._stroke(bridge, self.shade, 0.03, 1.4)
        wings = np.array(
            [[-0.2, tip - 0.03], [-0.1, tip + 0.05], [0.0, tip + 0.07], [0.1, tip + 0.05], [0.2, tip - 0.03]]
        )
        self._stroke(wings, self.line, 0.03, 1.4)
        for side in (-1, 1):
            self._disc(side * 0.09, tip + 0.01, 0.032, self.line, 1.4)
            fold = max(au(9), au(10), 0.75 * au(12), 0.7 * au(14))
            if fold > 0.2:  # nasolabial fold
                curve = np.array([[0.2, tip - 0.08], [0.4, tip + 0.1], [0.5, 0.72 - 0.08 * au(12)]]) * [
                    side,
                    1.0,
                ]
                self._stroke(curve, _mix(person.skin, self.line, fold), 0.028)
            if au(9) > 0.2:  # wrinkles on the bridge
                for row in range(3):
                    y = -0.2 + 0.11 * row
                    crease = np.array([[0.02, y], [0.17, y - 0.09]]) * [side, 1.0]
                    self._stroke(crease, _mix(person.skin, self.line, au(9)), 0.032)

    def _mouth(self) -> None:
        au, person, pose = self.au, self.person, self.pose
        width = person.mouth * (
            1 + 0.3 * au(12) + 0.3 * au(20) - 0.22 * au(23) - 0.12 * au(26) + 0.06 * au(14)
        )
        gap = 0.05 * au(25) + 0.3 * au(26) + 0.16 * au(25) * au(12) + 0.11 * pose.speech * (1 - 0.5 * au(23))
        upper_gap = 0.25 * gap + 0.14 * au(10)
        lower_gap = 0.75 * gap - 0.05 * au(17)
        lower_gap = max(lower_gap, 0.02 * au(10))
        thin = 1.0 - 0.6 * au(23) - 0.25 * au(12) - 0.15 * au(17)
        y0 = 0.74 - 0.06 * au(17) - 0.03 * au(12)
        u = _steps(-1, 1, 17)
        rise = np.where(u * pose.side > 0, au(-12), 0.0)
        corner = -0.2 * au(12) - 0.36 * rise + 0.2 * au(15) + 0.06 * au(17)
        stretch = 1 + 0.2 * rise
        base, arch = y0 + corner * u**2, 1 - u**2
        x = width * u * stretch
        top, bottom = base - upper_gap * arch, base + lower_gap * arch
        outer_top = top - 0.085 * thin * arch**0.6 * (1 - 0.18 * np.exp(-((u / 0.14) ** 2)))
        outer_bottom = bottom + 0.115 * thin * arch**0.8
        lips = _mix(person.skin, (178, 44, 58), 0.25 + person.lip_red)
        self._fill(np.concatenate([_curve(x, outer_top), _curve(x, outer_bottom)[::-1]]), lips)
        if float(np.max(bottom - top)) > 0.03:
            self._fill(np.concatenate([_curve(x, top), _curve(x, bottom)[::-1]]), (62, 18, 22))
            teeth = top + np.minimum((bottom - top) * 0.55, 0.09)
            self._fill(np.concatenate([_curve(x, top), _curve(x, teeth)[::-1]]), (244, 240, 232))
        else:
            self._stroke(_curve(x, base), _mix(lips, (20, 0, 0), 0.6), 0.03)
        for side in (-1, 1):
            at = 8 + side * 8
            pressed = au(14) if side == pose.side else 0.4 * au(14)
            if pressed > 0.15:  # the dimple beside a tightened corner
                dent = np.array([[0.06, -0.12], [0.11, 0.0], [0.06, 0.12]]) * [side, 1.0] + [x[at], base[at]]
                self._stroke(dent, _mix(person.skin, self.line, pressed), 0.04)
        if au(17) > 0.2:  # the mentalis bunches the chin
            boss = _curve(_steps(-0.22, 0.22, 9), 0.98 - 0.07 * (1 - _steps(-1, 1, 9) ** 2))
            self._stroke(boss, _mix(person.skin, self.line, au(17)), 0.035)
            for spot in (-0.1, 0.0, 0.1):
                self._disc(spot, 1.06, 0.02, _mix(person.skin, self.line, au(17)))
        if person.beard == 2:
            hairs = np.concatenate(
                [_curve(x * 0.95, outer_top - 0.1 * arch - 0.02), _curve(x, outer_top)[::-1]]
            )
            self._fill(hairs, _mix(person.hair, person.skin, 0.2))


def _background(person: Person, rng: np.random.Generator) -> Image.Image:
    side = SIZE * _SUPERSAMPLING
    wall = np.array(person.wall, np.float32)
    fade = np.linspace(1.06, 0.72, side, dtype=np.float32)[:, None, None]
    pixels = np.broadcast_to(np.clip(wall * fade, 0, 255), (side, side, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 5))):
        x, y, w, h = rng.uniform(0, side, 2).tolist() + rng.uniform(30, 130, 2).tolist()
        tone = _mix(
            person.wall,
            (255, 250, 230) if rng.random() < 0.5 else (50, 50, 60),
            float(rng.uniform(0.15, 0.45)),
        )
        canvas.rectangle((x, y, x + w, y + h), fill=tone)
    return image.filter(ImageFilter.BoxBlur(9))


def _ellipse(x: float, y: float, rx: float, ry: float, count: int) -> Points:
    across, down = _circle(count)
    return _curve(x + rx * across, y + ry * down)


@cache
def _circle(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of `count` angles, counted from the right."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.cos(angle), np.sin(angle)


@cache
def _steps(start: float, stop: float, count: int) -> np.ndarray:
    """`np.linspace`, made once, since every frame needs the same ones."""
    return np.linspace(start, stop, count)


def _curve(x: np.ndarray, y: np.ndarray) -> Points:
    """The points (x, y); `np.stack` takes three times as long for so few."""
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


def _mix(color: Color, other: Color, share: float) -> Color:
    red, green, blue = (
        round(a + (b - a) * min(max(share, 0.0), 1.0)) for a, b in zip(color, other, strict=True)
    )
    return red, green, blue
