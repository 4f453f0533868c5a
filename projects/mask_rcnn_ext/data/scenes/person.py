"""An articulated figure with COCO's 17 keypoints, facing the viewer.

Lengths are in 1/1000 of the standing height until `_Body` scales them to UNIT; the pelvis is the
origin, y points down. The person's left is on the right of the picture, as for anyone who faces us.
"""

from __future__ import annotations

from .geometry import TURN, Disc, Figure, Part, Point, Polygon, capsule, rotate
from .rng import Stream

UNIT = 1 << 14  # the standing height

KEYPOINT_NAMES = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)

# Pairs of 1-based keypoint numbers, as COCO writes them.
SKELETON = (
    (16, 14),
    (14, 12),
    (17, 15),
    (15, 13),
    (12, 13),
    (6, 12),
    (7, 13),
    (6, 7),
    (6, 8),
    (7, 9),
    (8, 10),
    (9, 11),
    (2, 3),
    (1, 2),
    (1, 3),
    (2, 4),
    (3, 5),
    (4, 6),
    (5, 7),
)

SKIN, SHIRT, TROUSERS, EYES = range(4)  # tints

_SHOULDER = (118, -290)
_HIP = (68, 0)
_HEAD = (0, -445)
_FACE = {"nose": (0, 18), "eye": (38, -18), "ear": (84, 0)}  # from the head's centre


def _degrees(value: int) -> int:
    return value * TURN // 360


def _units(value: int) -> int:
    return value * UNIT // 1000


class _Body:
    """Joints of one pose, and the parts that clothe them."""

    def __init__(self, stream: Stream, pixels: int) -> None:
        self.tilt = _degrees(stream.between(-18, 18))
        # A limb is never thinner than about 2 px, so that the pixel of a joint belongs to the
        # body; the fifth on top is for spread arms, which make the figure wider than tall.
        self.thinnest = UNIT * 12 // (10 * pixels)
        self.joints: dict[str, Point] = {}
        for sign, side in ((1, "left"), (-1, "right")):
            self._pose_arm(stream, sign, side)
            self._pose_leg(stream, sign, side)
        self._pose_face()

    def _at(self, x: int, y: int) -> Point:
        return rotate((_units(x), _units(y)), self.tilt)

    def _limb(self, start: Point, length: int, outward: int, sign: int) -> Point:
        """The other end of a limb that hangs down, lifted outwards by an angle."""
        dx, dy = rotate((0, _units(length)), -sign * outward + self.tilt)
        return start[0] + dx, start[1] + dy

    def _pose_arm(self, stream: Stream, sign: int, side: str) -> None:
        raised = stream.chance(300)
        lift = _degrees(stream.between(70, 150) if raised else stream.between(8, 60))
        bend = _degrees(stream.between(-15, 75))
        shoulder = self._at(sign * _SHOULDER[0], _SHOULDER[1])
        elbow = self._limb(shoulder, 165, lift, sign)
        self.joints[f"{side}_shoulder"] = shoulder
        self.joints[f"{side}_elbow"] = elbow
        self.joints[f"{side}_wrist"] = self._limb(elbow, 165, lift + bend, sign)

    def _pose_leg(self, stream: Stream, sign: int, side: str) -> None:
        lift = _degrees(stream.between(30, 70) if stream.chance(150) else stream.between(2, 25))
        bend = _degrees(stream.between(0, 60) if stream.chance(250) else stream.between(-5, 12))
        hip = self._at(sign * _HIP[0], _HIP[1])
        knee = self._limb(hip, 220, lift, sign)
        self.joints[f"{side}_hip"] = hip
        self.joints[f"{side}_knee"] = knee
        self.joints[f"{side}_ankle"] = self._limb(knee, 220, lift - bend, sign)

    def _pose_face(self) -> None:
        x, y = _HEAD
        self.joints["nose"] = self._at(x + _FACE["nose"][0], y + _FACE["nose"][1])
        for sign, side in ((1, "left"), (-1, "right")):
            for organ in ("eye", "ear"):
                dx, dy = _FACE[organ]
                self.joints[f"{side}_{organ}"] = self._at(x + sign * dx, y + dy)

    def _radius(self, value: int) -> int:
        return max(_units(value), self.thinnest)

    def _between(self, a: str, b: str, radius_a: int, radius_b: int, tint: int) -> list[Part]:
        ends = self.joints[a], self.joints[b]
        return capsule(*ends, self._radius(radius_a), self._radius(radius_b), tint)

    def parts(self) -> list[Part]:
        """Legs, neck, trunk, arms and head, in painting order."""
        parts = []
        for side in ("left", "right"):
            parts += self._between(f"{side}_hip", f"{side}_knee", 62, 48, TROUSERS)
            parts += self._between(f"{side}_knee", f"{side}_ankle", 48, 38, TROUSERS)
        parts += self._trunk()
        for side in ("left", "right"):
            parts += self._between(f"{side}_shoulder", f"{side}_elbow", 46, 38, SHIRT)
            parts += self._between(f"{side}_elbow", f"{side}_wrist", 36, 32, SKIN)
        return parts + self._head()

    def _trunk(self) -> list[Part]:
        radius = self._radius(38)
        neck = capsule(self._at(0, -400), self._at(0, -300), radius, radius, SKIN)
        corners = [(-118, -330), (118, -330), (82, 20), (-82, 20)]
        trunk = Polygon(tuple(self._at(x, y) for x, y in corners))
        return [*neck, Part(trunk, SHIRT)]

    def _head(self) -> list[Part]:
        head = Disc(self._at(*_HEAD), max(_units(105), _units(84) + self.thinnest))
        eyes = [Disc(self.joints[f"{side}_eye"], _units(17)) for side in ("left", "right")]
        return [Part(head, SKIN), *(Part(eye, EYES) for eye in eyes)]


def build_person(stream: Stream, pixels: int) -> Figure:
    """A person in a random pose, with the keypoints in COCO's order as the figure's points.

    Args:
        stream: where the pose comes from
        pixels: the size it will be drawn at, to keep the limbs visible
    """
    body = _Body(stream, pixels)
    return Figure(tuple(body.parts()), tuple(body.joints[name] for name in KEYPOINT_NAMES))
