"""A data set's YAML: what it may say, what is refused and how, and files that mean harm."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_rcnn_ext.data.keypoint_schema import _KEYPOINTS, keypoints_of_categories
from mask_rcnn_ext.data.spec import _CLASSES, _SPLIT, _TOP, parse_specs
from mask_rcnn_ext.data.spec_file import read_documents
from mask_rcnn_ext.errors import UsageError

TOY = """
name: my_toy
format: coco
root: ../somewhere
splits:
  train: {annotations: train.json, images: images/train}
  val: {annotations: val.json, images: images/val}
classes:
  rename: {pedestrian: person}
  merge: {vehicle: [car, truck, bus]}
  drop: [misc]
  order: [person, vehicle]
evaluator: coco
keypoints:
  names: [nose, left_eye, right_eye]
  flip: [[left_eye, right_eye]]
  skeleton: [[nose, left_eye], [nose, right_eye, [1, 2, 3]]]
  sigmas: [0.1, 0.2, 0.2]
"""


def _parse(text: str) -> Any:
    return parse_specs(yaml.safe_load(text), "toy.yaml", "/data")


def test_everything_at_once():
    train, val = _parse(TOY)
    assert (train.name, val.name) == ("my_toy_train", "my_toy_val")
    assert (train.folder, train.root) == ("/data", "../somewhere")
    assert (val.parts[0].annotations, val.parts[0].images) == ("val.json", "images/val")
    assert train.classes.merge == (("vehicle", ("car", "truck", "bus")),)
    assert train.classes.order == ("person", "vehicle")
    assert train.keypoints.flip == (("left_eye", "right_eye"),)
    assert train.keypoints.skeleton[1] == ("nose", "right_eye", (1, 2, 3))
    assert train.keypoints.skeleton[0][2] != (1, 2, 3)
    assert train.keypoints.sigmas == (0.1, 0.2, 0.2)
    assert not train.is_plain


def test_the_least():
    (spec,) = _parse("{name: a, annotations: a.json}")
    assert (spec.name, spec.format, spec.evaluator, spec.keypoints) == ("a", "coco", "coco", None)
    assert spec.is_plain


def test_parts_with_images_chosen():
    (spec,) = _parse(
        "{name: a, splits: {x: {parts: [{annotations: 1.json}, "
        "{annotations: 2.json, without_images_of: ids.json}]}}}"
    )
    assert [part.annotations for part in spec.parts] == ["1.json", "2.json"]
    assert spec.parts[1].without_images_of == ("ids.json",)
    assert not spec.is_plain


def test_coco_persons_keypoints_by_name():
    from detectron2.data.datasets import builtin_meta

    (spec,) = _parse("{name: a, annotations: a.json, keypoints: coco_person}")
    assert spec.keypoints.names == builtin_meta.COCO_PERSON_KEYPOINT_NAMES
    assert spec.keypoints.flip == builtin_meta.COCO_PERSON_KEYPOINT_FLIP_MAP
    assert list(spec.keypoints.skeleton) == builtin_meta.KEYPOINT_CONNECTION_RULES


def test_keypoints_that_the_file_names():
    person = {
        "keypoints": ["nose", "left_eye", "eyeRight", "right_eye", "eyeLeft", "left_horn"],
        "skeleton": [[1, 2], [2, 9]],
    }
    schema = keypoints_of_categories([{"name": "cat"}, person, person])
    assert schema is not None
    assert schema.flip == (("left_eye", "right_eye"), ("eyeLeft", "eyeRight"))
    assert [line[:2] for line in schema.skeleton] == [("nose", "left_eye")]
    assert keypoints_of_categories([person, {"keypoints": ["tail"]}]) is None
    assert keypoints_of_categories([{"name": "cat"}]) is None


_SPLITS = "splits: {a: {annotations: a.json}}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1]", r"holds a list \[1\], expected a mapping"),
        ("just text", "holds 'just text', expected a mapping"),
        ("{annotations: a.json}", "name is missing"),
        ("{name: 3, annotations: a.json}", "name is the number 3, expected text"),
        ("{name: a}", "annotations is missing"),
        ("{name: a, anotations: a.json}", "unknown key 'anotations'; did you mean annotations"),
        ("{name: a, 1: b}", "the key the number 1 is not text"),
        ("{name: a, splits: {}}", "splits is empty"),
        ("{name: a, splits: [train]}", "splits holds a list .*expected a mapping"),
        ("{name: a, splits: {train: a.json}}", "splits.train holds 'a.json', expected a mapping"),
        ("{name: a, splits: {train: {image: x}}}", "splits.train: unknown key 'image'; .*images"),
        (f"{{name: a, format: COCO, {_SPLITS}}}", "format is 'COCO', expected one of coco, city"),
        (f"{{name: a, format: yolo, {_SPLITS}}}", "did you mean yolo-seg"),
        (f"{{name: a, evaluator: coc, {_SPLITS}}}", "evaluator is 'coc'.*did you mean coco"),
        (f"{{name: a, evaluator: cityscapes, {_SPLITS}}}", "judges the files of a Cityscapes tree"),
        (f"{{name: ../../a, {_SPLITS}}}", "'../../a_a' cannot be the name of a data set"),
        (f"{{name: a b, {_SPLITS}}}", "'a b_a' cannot be the name"),
        ("{name: a, splits: {a/b: {annotations: a.json}}}", "'a_a/b' cannot be the name"),
        (f"{{name: {'n' * 200}, {_SPLITS}}}", "at most 120"),
        (f"{{name: a, root: $HOME/x, {_SPLITS}}}", r"'\$HOME' in '\$HOME/x'; the one variable"),
        ("{name: a, annotations: '${SECRET}/a.json'}", "annotations: .*SECRET"),
        ('{name: a, annotations: "a\\0b"}', "zero byte"),
        (f"{{name: a, classes: [a, b], {_SPLITS}}}", r"write classes: \{order: \[...\]\}"),
        (f"{{name: a, classes: {{ordr: [a]}}, {_SPLITS}}}", "'ordr'; did you mean order"),
        (
            f"{{name: a, classes: {{order: [a, no]}}, {_SPLITS}}}",
            r"order\[1\] is the boolean .*quo",
        ),
        (f"{{name: a, classes: {{drop: [a, a]}}, {_SPLITS}}}", "drop has 'a' twice"),
        (f"{{name: a, classes: {{drop: a}}, {_SPLITS}}}", "drop is 'a', expected a list of texts"),
        (f"{{name: a, classes: {{keep: [a], drop: [b]}}, {_SPLITS}}}", "exclude each other"),
        (f"{{name: a, classes: {{keep: []}}, {_SPLITS}}}", "keep is an empty list"),
        (
            f"{{name: a, classes: {{rename: {{a: 1}}}}, {_SPLITS}}}",
            "rename.a is 1, expected the new",
        ),
        (
            f"{{name: a, classes: {{merge: {{a: b}}}}, {_SPLITS}}}",
            "merge: a is 'b', expected a list",
        ),
        (
            f"{{name: a, keypoints: person, {_SPLITS}}}",
            "'person', expected coco_person or a mapping",
        ),
        (f"{{name: a, keypoints: {{flip: []}}, {_SPLITS}}}", "names is missing"),
        (
            f"{{name: a, keypoints: {{names: [a, b], flip: [[a, c]]}}, {_SPLITS}}}",
            r"flip\[0\] has 'c', which is not among names: a, b",
        ),
        (
            f"{{name: a, keypoints: {{names: [a, b, c], flip: [[a, b], [a, c]]}}, {_SPLITS}}}",
            "flip has 'a' more than once",
        ),
        (
            f"{{name: a, keypoints: {{names: [a, b], flip: [[a, b, [1, 2, 3]]]}}, {_SPLITS}}}",
            "expected a list of pairs of names$",
        ),
        (f"{{name: a, keypoints: {{names: [a], flip: [[a, a]]}}, {_SPLITS}}}", "'a' with itself"),
        (
            f"{{name: a, keypoints: {{names: [a, b], skeleton: [[a, b, red]]}}, {_SPLITS}}}",
            "each with an RGB colour",
        ),
        (f"{{name: a, keypoints: {{names: [a], sigmas: [1, 2]}}, {_SPLITS}}}", "each of the 1"),
        (f"{{name: a, keypoints: {{names: [a], sigmas: [0]}}, {_SPLITS}}}", "above 0"),
        ("{name: a, format: cityscapes}", "format cityscapes needs splits"),
        (f"{{name: a, format: cityscapes, {_SPLITS}}}", "unknown key 'annotations'; known: split"),
        (
            "{name: a, format: cityscapes, splits: {a: {split: ../x}}}",
            "split is '../x', expected train, val or test",
        ),
        ("{name: a, splits: {a: {parts: []}}}", "parts is .*expected a list of mappings"),
        ("{name: a, splits: {a: {parts: [{}], annotations: x}}}", "not both"),
        (
            "{name: a, format: via, annotations: a.json, only_images_of: b.json}",
            "go by COCO's image ids; the format is via",
        ),
        ("{name: a, annotations: a, if_missing: {annotations: b, x: 1}}", "if_missing: unknown"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, expected):
    with pytest.raises(UsageError, match=f"^toy.yaml.*{expected}"):
        _parse(text)


@pytest.fixture
def read(tmp_path):
    def run(content: str | bytes) -> list[tuple[str, Any]]:
        path = tmp_path / "set.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_documents(path)

    return run


def test_documents_have_their_number(read):
    documents = read("name: a\n---\n---\nname: b\n")
    assert [content for _, content in documents] == [{"name": "a"}, {"name": "b"}]
    assert documents[0][0].endswith("set.yaml")
    assert documents[1][0].endswith("set.yaml (document 2)")


def _laughs(line: str) -> str:
    first = "a0: &a0 {x: 1}\n" if "<<" in line else "a0: &a0 [x, x, x, x, x, x, x, x]\n"
    return first + "".join(line.format(n=n, m=n - 1) for n in range(1, 20))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("a: [", "is not a YAML that can be read"),
        ("name: a\nname: b\n", "line 2: the key 'name' comes twice"),
        (b"name: \xff\xfe", "not text in UTF-8"),
        ("name: \x00", "is not a YAML"),
        ("!!python/object/apply:os.system ['touch hacked']", "is not a YAML .*python/object"),
        ("a: !!python/name:os.system", "is not a YAML"),
        ("a: !include /etc/passwd", "is not a YAML"),
        (_laughs("a{n}: &a{n} [*a{m}, *a{m}, *a{m}]\n"), "aliases multiply"),
        (_laughs("a{n}: &a{n} {{<<: [*a{m}, *a{m}, *a{m}]}}\n"), "aliases multiply"),
        ("a: &a [*a]", "nests deeper than|aliases multiply"),
        ("[" * 60 + "]" * 60, "nests deeper than 50"),
        ("[" * 100000, "nests too deep|is not a YAML"),
        ("a: 2001-99-99", "is not a YAML"),
        ("x" * 1_000_001, "has 1000001 bytes"),
    ],
)
def test_files_that_mean_harm(read, tmp_path, monkeypatch, content, expected):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=expected) as caught:
        read(content)
    assert "set.yaml" in str(caught.value)
    assert not (tmp_path / "hacked").exists()


def test_what_is_no_file(tmp_path):
    with pytest.raises(UsageError, match="is not a file"):
        read_documents(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        read_documents(tmp_path / "no.yaml")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_KEYS = [*_TOP, *_SPLIT, *_CLASSES, *_KEYPOINTS, "split", "train"]


@st.composite
def _mutations(draw: st.DrawFn) -> Any:
    """The good description with one value replaced, one key removed or one added."""
    content = yaml.safe_load(TOY)
    node: Any = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw(st.sampled_from(keys)) if keys else None
        inner = node[key] if key is not None else None
        if isinstance(inner, dict | list) and inner and draw(st.integers(0, 2)):
            node = inner
            continue
        value = draw(_values)
        if isinstance(node, dict) and draw(st.booleans()):
            key = draw(st.sampled_from(_KEYS))
        if key is None:
            return value
        node[key] = value
        return content


@settings(deadline=None, max_examples=300)
@given(_mutations())
def test_any_description_is_taken_or_refused_in_words(content):
    message = "toy.yaml"
    try:
        assert parse_specs(content, "toy.yaml", "/data")
    except UsageError as error:
        message = str(error)
    assert message.startswith("toy.yaml")
