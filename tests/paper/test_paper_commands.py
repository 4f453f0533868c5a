"""A stage as words of a command line, for each kind, and what stands in for it in a smoke run."""

from __future__ import annotations

import ast
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.paper import Keys, load_paper
from mask_rcnn_ext.paper.commands import (
    Machine,
    command_of,
    commands_for_data,
    gathering,
    names_in_run,
    pasted,
)
from mask_rcnn_ext.paper.place import Place
from mask_rcnn_ext.paper.run_folder import (
    Marker,
    holds_a_run,
    is_done,
    move_aside,
    outputs_of,
    read_marker,
    write_marker,
)
from mask_rcnn_ext.paper.smoke import load_smoke, stand_ins

PLACE = Place(Path("out"), Path("records"))
CPU, GPUS = Machine("cpu"), Machine("cuda", 4)


@pytest.fixture(scope="module")
def paper():
    return load_paper()


@pytest.fixture(scope="module")
def small(paper):
    return stand_ins(paper, load_smoke())


def _words(paper, stage, seed=1, machine=CPU, **more):
    return command_of(paper, PLACE, paper.stages[stage], seed, machine, **more).words


def _keys(words):
    """What the words' KEY VALUE pairs say."""
    first = next(i for i, word in enumerate(words) if word.partition(".")[0].isupper())
    assert len(words[first:]) % 2 == 0
    keys = words[first::2]
    assert len(keys) == len({*keys}), "none is given twice"
    return dict(zip(keys, words[first + 1 :: 2], strict=True))


WORDS = [
    "DATASETS.TEST",
    "['a', 'b']",
    "",
    "a b",
    "it's $HOME",
    "don't `x`",
    'say "it\'s"',
    "a\\'b!",
]


def test_pasted_words_are_the_same_words_for_a_shell():
    assert pasted(WORDS[:4]) == "DATASETS.TEST \"['a', 'b']\" '' 'a b'"
    assert shlex.split(pasted(WORDS)) == WORDS
    script = f"printf '%s\\0' {pasted(WORDS)}"
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.split("\0")[:-1] == WORDS


def test_a_training(paper):
    words = _words(paper, "rpn_R_50_C4", 3)
    config = "configs/COCO-Detection/rpn_R_50_C4_iccv.yaml"
    assert words[:6] == [
        sys.executable, "-m", "mask_rcnn_ext.tools", "train", "--config-file", config,
    ]  # fmt: skip
    seed = paper.stages["rpn_R_50_C4"].seed_for(3)
    assert _keys(words) == {
        "SEED": str(seed),
        "MODEL.DEVICE": "cpu",
        "OUTPUT_DIR": f"out/runs/rpn_R_50_C4/seed_{seed}",
    }
    assert "--num-gpus" not in words
    words = _words(paper, "rpn_R_50_C4", machine=GPUS)
    assert words[words.index("--num-gpus") + 1] == "4"
    assert _keys(words)["MODEL.DEVICE"] == "cuda"


def test_one_that_trains_on_proposals_and_one_that_dumps_them(paper):
    dump = _words(paper, "proposals_R_50_C4")
    assert "--eval-only" in dump
    assert _keys(dump)["MODEL.WEIGHTS"] == "out/runs/rpn_R_50_C4/seed_1/model_final.pth"
    row = _words(paper, "mask_R_50_C4", 2)
    assert "--eval-only" not in row
    # Where the dump leaves them: of the same seed, or of the one that serves all.
    folder = PLACE.run_of(paper.stages["proposals_R_50_C4"], 2) / "inference"
    for key, names in (
        ("TRAIN", ["coco_2014_train", "coco_2014_valminusminival"]),
        ("TEST", ["coco_2014_minival"]),
    ):
        files = ast.literal_eval(_keys(row)[f"DATASETS.PROPOSAL_FILES_{key}"])
        assert files == [f"{folder}/{name}/box_proposals.pkl" for name in names]
    dumped = outputs_of(PLACE, paper.stages["proposals_R_50_C4"], 2)
    assert {*map(Path, files)} < {*dumped}
    assert len(dumped) == 3


def test_an_evaluation_of_another_stages_model(paper):
    words = _words(paper, "mask_X_152_FPN_nonlocal_views")
    assert "--eval-only" in words
    keys = _keys(words)
    assert keys["TEST.AUG.ENABLED"] == "True"
    assert keys["MODEL.WEIGHTS"] == "out/runs/mask_X_152_FPN_nonlocal/seed_1/model_final.pth"


def test_a_machine_with_little_memory_or_without_half_precision(paper):
    stage = "small_mask_R_50_C4"
    plain = _keys(_words(paper, stage))
    assert "SOLVER.ACCUMULATION_STEPS" not in plain
    assert plain["SOLVER.AMP.ENABLED"] == "True"
    machine = Machine("cpu", parts=4, float32=True)
    found = _keys(_words(paper, stage, machine=machine))
    changed = {key: value for key, value in found.items() if plain.get(key) != value}
    assert changed == {
        "SOLVER.ACCUMULATION_STEPS": "4",
        "SOLVER.AMP.ENABLED": "False",
        "TEST.PRECISION": "float32",
    }
    of = gathering(paper, PLACE, paper.stages[stage], 1, machine, key="k", code="c").words
    given = {of[at + 1]: of[at + 2] for at, word in enumerate(of) if word == "--given"}
    assert given == changed
    for other in ("small_proposals_R_50_C4", "small_distill_keypoints"):
        keys = _keys(_words(paper, other, machine=machine))
        assert "SOLVER.ACCUMULATION_STEPS" not in keys
        assert keys["TEST.PRECISION"] == "float32"


def test_distilling_and_training_on_the_labels(paper):
    words = _words(paper, "distill_keypoints")
    assert words[3:5] == ["data", "distill"]
    given = dict(zip(words[5::2], words[6::2], strict=False))
    assert given["--images"] == "coco_2017_unlabeled"
    assert given["--weights"].endswith("keypoint_X_101_FPN_teacher/seed_1/model_final.pth")
    like = [words[i + 1] for i, word in enumerate(words) if word == "--like"]
    assert like == ["keypoints_coco_2014_train", "keypoints_coco_2014_valminusminival"]
    assert "--force" not in words
    again = _words(paper, "distill_keypoints", replace=True)
    assert again.index("--force") < again.index("--output"), "options go before KEY VALUE"
    keys = _keys(_words(paper, "keypoint_X_101_FPN_distilled"))
    assert ast.literal_eval(keys["DATASETS.TRAIN"]) == [*like, "distilled_labels"]
    assert ast.literal_eval(keys["DATASETS.REGISTRY"]) == [
        "out/runs/distill_keypoints/seed_1/registry.yaml"
    ]


def test_a_timing(paper):
    words = _words(paper, "time_mask_R_101_C4")
    assert words[3:5] == ["bench", "infer"]
    assert words[-4:] == ["MODEL.WEIGHTS", "", "MODEL.RPN.POST_NMS_TOPK_TEST", "300"]
    assert words[words.index("--json") + 1] == "out/runs/time_mask_R_101_C4/seed_1/bench.json"
    assert "--images" not in words
    assert "--images" in _words(paper, "time_mask_R_101_C4", smoke=True)


def test_every_stage_has_a_command_with_pairs_and_finds_what_it_needs(paper, small):
    for one in (paper, small):
        for stage in one.stages.values():
            words = command_of(one, PLACE, stage, 2, CPU).words
            _keys(words)
            for need in stage.needs:
                below = one.stages[need]
                folder = str(PLACE.run_of(below, 2))
                assert any(folder in word for word in words), (stage.id, need)


def test_generated_data_have_a_root_of_their_own(paper):
    stage = next(s for s in paper.stages.values() if s.scale == "scenes" and s.kind == "train")
    (made,) = (name for name in stage.data if paper.data[name].make)
    command = command_of(paper, PLACE, stage, 1, CPU)
    assert command.environment == {"DETECTRON2_DATASETS": f"out/data/{made}"}
    first = commands_for_data(paper, PLACE, made)[0].words
    folder = paper.data[made].make[0].folder
    assert first[3:6] == ["scenes", "--out", f"out/data/{made}/{folder}"]
    assert not command_of(paper, PLACE, paper.stages["mask_R_50_C4"], 1, CPU).environment


def test_gathering(paper):
    stage = paper.stages["mask_R_50_C4"]
    words = gathering(paper, PLACE, stage, 2, CPU, key="k", code="c").words
    assert words[1:3] == ["-m", "mask_rcnn_ext.tools.tables.gather"]
    assert dict(zip(words[3::2], words[4::2], strict=True)) == {
        "--stage": "mask_R_50_C4", "--seed": "2", "--key": "k", "--code": "c", "--out": "out",
        "--records": "records", "--scale": "coco", "--device": "cpu",
    }  # fmt: skip
    more = gathering(
        paper, PLACE, stage, 2, CPU, key="k", code="c", smoke=True, hours=0.5, failed="-no memory"
    ).words
    assert more[len(words) :] == ["--hours", "0.50000", "--failed=-no memory", "--smoke"]


def test_gather_understands_these_words(paper):
    from mask_rcnn_ext.tools.tables import gather

    words = gathering(
        paper, PLACE, paper.stages["mask_R_50_C4"], 2, CPU, key="k", code="c", failed="-x", hours=1
    ).words
    args = gather._parser().parse_args(words[3:])
    assert (args.failed, args.hours, args.out) == ("-x", 1.0, Path("out"))


# ---- smoke


def test_stand_ins_for_data_and_schedule(paper, small):
    keys = _keys(_words(small, "mask_R_50_C4"))
    assert keys["SOLVER.MAX_ITER"] == "4"
    assert keys["MODEL.WEIGHTS"] == ""
    assert ast.literal_eval(keys["DATASETS.TRAIN"]) == ["coco_2017_train"]
    # A run on some images calls the set by another name.
    (file,) = ast.literal_eval(keys["DATASETS.PROPOSAL_FILES_TRAIN"])
    assert file.endswith("proposals_R_50_C4/seed_1/inference/coco_2017_train_first8/"
                         "box_proposals.pkl")  # fmt: skip
    assert small.data["coco"].sets == ("coco_2017_train", "coco_2017_val")
    assert not any(stage.weights for stage in small.stages.values() if stage.kind != "time")
    assert "--limit" in _words(small, "distill_keypoints")
    # Its own stages and hours are as they were.
    assert paper.stages["mask_R_50_C4"].overrides == {}


def test_cityscapes_is_generated_in_a_smoke_run(small):
    stage = small.stages["mask_cityscapes"]
    command = command_of(small, PLACE, stage, 1, CPU)
    assert command.environment == {"DETECTRON2_DATASETS": "out/data/cityscapes"}
    assert ast.literal_eval(_keys(command.words)["DATASETS.TRAIN"]) == ["cityscapes_scenes_train"]


def test_generated_data_are_few_in_a_smoke_run(small):
    counts = [n for one in small.data.values() for m in one.make for n in (m.images, m.val_images)]
    assert max(counts) <= load_smoke().at_most


def test_keys_of_a_smoke_run_are_others_and_ask_for_no_data(paper, small):
    def fail(name):
        raise AssertionError(name)

    real = Keys(paper, code="c", fingerprint=lambda name: "f").key_of("mask_R_50_C4", 1)
    smoke = Keys(small, code="c", fingerprint=fail, smoke=load_smoke().as_json)
    assert smoke.key_of("mask_R_50_C4", 1) != real


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "cannot be read"),
        ("{overrides: {}, hours: 1, at_most: 4, data: {}, more: 1}", "more"),
        ("{overrides: {}, hours: 1, at_most: 1, data: {}}", "at_most"),
    ],
)
def test_a_wrong_smoke_file(tmp_path, text, says):
    (tmp_path / "smoke.yaml").write_text(text)
    with pytest.raises(UsageError, match=says) as error:
        load_smoke(tmp_path / "smoke.yaml")
    assert "smoke.yaml" in str(error.value)


def test_a_smoke_file_of_data_that_there_are_not(paper):
    smoke = load_smoke()
    other = msgspec.structs.replace(smoke, data={"cocoo": smoke.data["coco"]})
    with pytest.raises(UsageError, match="unknown data 'cocoo'; did you mean coco"):
        stand_ins(paper, other)


def test_names_in_a_run():
    config = {"DATASETS.TEST": ["a", "b"]}
    assert names_in_run(config, "TEST") == ["a", "b"]
    assert names_in_run({**config, "DATASETS.MAX_IMAGES": 3}, "TEST") == ["a_first3", "b_first3"]


# ---- the folder of a run


def test_a_stage_is_done_when_its_marker_and_its_files_say_so(paper, tmp_path):
    place, stage = Place(tmp_path, tmp_path), paper.stages["mask_R_50_C4"]
    folder = place.run_of(stage, 1)
    assert not is_done(place, stage, 1, "key")
    write_marker(folder, Marker(key="key", state="done"))
    assert not is_done(place, stage, 1, "key"), "its weights are not there"
    for path in outputs_of(place, stage, 1):
        path.touch()
    assert is_done(place, stage, 1, "key")
    assert not is_done(place, stage, 1, "another")
    write_marker(folder, Marker(key="key", state="started"))
    assert not is_done(place, stage, 1, "key")


def test_a_marker_that_cannot_be_read_is_none(tmp_path):
    (tmp_path / "key.json").write_text('{"key": ')
    assert read_marker(tmp_path) is None
    assert not holds_a_run(tmp_path)


def test_moving_aside_never_takes_a_name_that_is_there(tmp_path):
    for number in (1, 2):
        folder = tmp_path / "seed_1"
        folder.mkdir()
        (folder / "run.json").touch()
        assert holds_a_run(folder)
        assert move_aside(folder) == tmp_path / f"seed_1.old-{number}"
    assert not folder.exists()
