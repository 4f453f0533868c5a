"""What configs/paper/ says: tables of rows and columns, comparisons in the text, and stages.

    Table ─ Row ─ stage ─> Stage ─ model, proposals, labels ─> Stage ...
    Comparison ─ Figure ─ of, minus ─> Stage

All are frozen. `reading.py` makes them from files and checks that what they name exists.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec

from ..errors import UsageError

IN_TEXT = "in-text"  # what a user calls the comparisons

Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(gt=0)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+-]*$")]
Key = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]+/[A-Za-z0-9_-]+$")]
Scale = Literal["coco", "scenes"]


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping of a file; an unknown key is refused."""


class Scenes(_Spec, frozen=True, kw_only=True):
    """One call of `mask-rcnn-ext scenes`.

    folder: below the root of the data sets
    layout: coco or cityscapes
    images, val_images: of training and validation
    size: side in pixels, or HEIGHTxWIDTH
    seed: same seed, same bytes
    """

    folder: Text
    layout: Literal["coco", "cityscapes"] = "coco"
    images: Count
    val_images: Count
    size: Annotated[str, msgspec.Meta(pattern=r"^\d+(x\d+)?$")]
    seed: int

    @property
    def words(self) -> list[str]:
        """Of `mask-rcnn-ext scenes`, all but --out."""
        given = {
            "layout": self.layout,
            "images": self.images,
            "val-images": self.val_images,
            "size": self.size,
            "seed": self.seed,
        }
        return [word for key, value in given.items() for word in (f"--{key}", str(value))]


class Data(_Spec, frozen=True, kw_only=True):
    """Images and annotations that must be there before a stage.

    sets: names as in DATASETS.TRAIN
    images: how many there are in all
    gigabytes: to download, or that generated ones take
    address: where they come from
    make: how they are generated, for those that are; such data have a root of their own
    """

    sets: tuple[Text, ...]
    images: int
    gigabytes: Positive
    address: Text
    make: tuple[Scenes, ...] = ()


class Weights(_Spec, frozen=True, kw_only=True):
    """Published weights.

    address: as in MODEL.WEIGHTS: detectron2://, catalog://, https://, or a path that a user fills
    sha256, md5: their first digits, where they are known
    note: how to come by them where nobody publishes them
    """

    address: Text
    sha256: str = ""
    md5: str = ""
    note: str = ""

    @property
    def is_published(self) -> bool:
        """Whether they can be fetched; else the user must bring a file."""
        return "://" in self.address


class Stage(_Spec, frozen=True, kw_only=True):
    """One run in a folder of its own; configs/paper/stages.yaml says what each kind does.

    id: its name
    scale: "coco" for the paper's own protocol, "scenes" for generated data
    kind: what is run
    config: below configs/
    overrides: config keys and their values, over the config
    model: the stage whose final weights are MODEL.WEIGHTS
    proposals: the stage whose box_proposals.pkl are DATASETS.PROPOSAL_FILES_TRAIN and _TEST
    labels: the distill stage whose labels are one more training set
    weights: published ones that the config names
    data: what it reads
    hours: estimate, on `hardware`
    hours_from: where that comes from
    footnotes: where it departs from the paper
    stands_for: of generated data: the stages of the paper's protocol that it shows in small
    seeds: "one": seed 1 alone is run, and serves every seed of the stages that need it
    """

    id: Id
    scale: Scale
    kind: Literal["train", "evaluate", "proposals", "distill", "time"]
    config: Text
    overrides: dict[str, Any] = {}
    model: str | None = None
    proposals: str | None = None
    labels: str | None = None
    weights: str | None = None
    data: tuple[str, ...]
    hours: Positive
    hours_from: Text
    hardware: Text
    footnotes: tuple[str, ...] = ()
    stands_for: tuple[str, ...] = ()
    seeds: Literal["each", "one"] = "each"

    def seed_for(self, seed: int) -> int:
        """The seed it is run with where `seed` is asked for."""
        return 1 if self.seeds == "one" else seed

    @property
    def needs(self) -> tuple[str, ...]:
        """Stages that must be finished before."""
        return tuple(one for one in (self.model, self.proposals, self.labels) if one is not None)

    @property
    def words(self) -> list[str]:
        """The overrides as train_net.py takes them: KEY VALUE KEY VALUE ..."""
        return [word for key, value in self.overrides.items() for word in (key, str(value))]

    def key_of(self, key: str) -> str:
        """The name in this stage's results.json of a figure that a table calls `key`.

        An evaluation with test-time augmentation has the plain figures, too; its own end in _TTA.
        """
        task, _, figure = key.partition("/")
        augmented = self.kind == "evaluate" and self.overrides.get("TEST.AUG.ENABLED") is True
        return f"{task}_TTA/{figure}" if augmented else key


class Column(_Spec, frozen=True, kw_only=True):
    """A column of a table.

    key: of results.json
    split: that the paper's figures are of; "" is the table's
    """

    key: Key
    split: str = ""


class Row(_Spec, frozen=True, kw_only=True):
    """A row of a table.

    id: what --row calls it
    name: as printed
    facts: what else the paper says of it: backbone, training data, ...; None is printed as "-"
    paper: column -> figure, in percent; None is printed as "-"
    stage: whose results are the row's figures; None for another system's
    reference: another system's, shown beside ours and not run
    footnotes: of this row alone
    """

    id: Id
    name: Text
    facts: dict[str, str | bool | None]
    paper: dict[str, Percent | None]
    stage: str | None = None
    reference: bool = False
    footnotes: tuple[str, ...] = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """All that its figures are of: one, or none."""
        return () if self.stage is None else (self.stage,)


class Delta(_Spec, frozen=True, kw_only=True):
    """A line of differences as printed: `row` less the row `minus`, column -> points."""

    row: str
    minus: str
    paper: dict[str, float]


class Step(_Spec, frozen=True, kw_only=True):
    """A row of a table over another one, where the paper speaks of the difference.

    row, minus: ids of rows
    claim: in a sentence
    """

    row: str
    minus: str
    claim: Text


class Table(_Spec, frozen=True, kw_only=True):
    """One table of the paper.

    table: its number
    title: its subject
    dataset, split: that its figures are of
    measured_on: the split that ours are of, where it is another one; "" is the same
    columns: in the paper's order
    note: what one must know to read it
    printed_delta: its line of differences, if it has one
    steps: one row over another, of those that the text does not compare
    footnotes: of all rows that are ours
    """

    table: Id
    title: Text
    dataset: Text
    split: Text
    measured_on: str = ""
    columns: dict[str, Column]
    rows: tuple[Row, ...]
    note: str = ""
    printed_delta: Delta | None = None
    steps: tuple[Step, ...] = ()
    footnotes: tuple[str, ...] = ()


class Figure(_Spec, frozen=True, kw_only=True):
    """A figure of the text, and how to measure it; without `of` it is only quoted.

    paper: as printed
    of, key: the stage whose result it is
    minus, minus_key: what is taken off; the same key where none is given
    percent_over: the stage than whose figure it is that many percent more
    """

    paper: Positive
    of: str | None = None
    key: Key | None = None
    minus: str | None = None
    minus_key: Key | None = None
    percent_over: str | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """All that it is computed from."""
        named = (self.of, self.minus, self.percent_over)
        return tuple(dict.fromkeys(one for one in named if one is not None))


class Comparison(_Spec, frozen=True, kw_only=True):
    """What the paper says in its text.

    id: what --row calls it
    section: where
    claim: in a sentence
    dataset, split: that its figures are of
    note: what one must know to measure it
    footnotes: where the measurement departs from the paper's
    figures: name -> figure
    nearly: two of them, the first of which the paper calls nearly as good as the second
    """

    id: Id
    section: Text
    claim: Text
    figures: dict[str, Figure]
    dataset: str = "COCO"
    split: str = "minival"
    note: str = ""
    nearly: tuple[str, str] | None = None
    footnotes: tuple[str, ...] = ()

    @property
    def stages(self) -> tuple[str, ...]:
        """All that it is computed from."""
        return tuple(dict.fromkeys(s for one in self.figures.values() for s in one.stages))


class Paper(_Spec, frozen=True, kw_only=True):
    """All of it, by id, in the paper's order."""

    tables: dict[str, Table]
    comparisons: dict[str, Comparison]
    stages: dict[str, Stage]
    data: dict[str, Data]
    weights: dict[str, Weights]
    footnotes: dict[str, str]

    def chain(self, *stages: str) -> tuple[Stage, ...]:
        """Stages and all that they need, each once and after what it needs."""
        found: dict[str, Stage] = {}

        def add(name: str) -> None:
            if name not in found:
                for need in self.stages[name].needs:
                    add(need)
                found[name] = self.stages[name]

        for name in stages:
            add(name)
        return tuple(found.values())

    def at(self, scale: Scale, stage: str) -> Stage | None:
        """A stage of the paper's protocol, or what shows it on generated data; None: no recipe."""
        if scale == "coco":
            return self.stages[stage]
        small = (one for one in self.stages.values() if stage in one.stands_for)
        return next(small, None)

    def footnotes_of(self, own: Iterable[str], stages: Iterable[Stage]) -> tuple[str, ...]:
        """Ids of footnotes: those of a row or table itself, then those of its stages, each once."""
        return tuple(dict.fromkeys([*own, *(note for one in stages for note in one.footnotes)]))

    def table(self, name: str) -> Table:
        """
        Args:
            name: "2c", "2C" or "table 2c"
        Raises:
            UsageError: no such table
        """
        short = name.lower().removeprefix("table").strip(" _")
        if short not in self.tables:
            known = [*self.tables, IN_TEXT]
            raise UsageError(f"there is no table {name!r}{nearest(short, known)}")
        return self.tables[short]


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not there: those like it, or all."""
    known = list(known)
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(known)}"
