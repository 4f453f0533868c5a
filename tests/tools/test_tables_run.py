"""`tables run` around its stages: what runs, what is kept, what a failure and Ctrl-C leave."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from mask_rcnn_ext.errors import Interrupted, UsageError, UserError
from mask_rcnn_ext.paper import Keys, Paper, Record, code_hash, read_record
from mask_rcnn_ext.paper.commands import Command
from mask_rcnn_ext.paper.lock import FolderLock
from mask_rcnn_ext.paper.place import Place
from mask_rcnn_ext.paper.run_folder import outputs_of, read_marker, write_registry
from mask_rcnn_ext.paper.schedule import End, Task
from mask_rcnn_ext.paper.spec import Column, Data, Row, Scenes, Stage, Table, Weights
from mask_rcnn_ext.tools import tables
from mask_rcnn_ext.tools.tables import (
    run_process,
    run_request,
    run_stage,
    run_status,
    run_submitit,
    run_work,
)
from mask_rcnn_ext.tools.tables.run_process import LocalLauncher, reason_of, tail_of

# A stage: says who it is, does what behave.json says of it, leaves its files.
STAGE = """
import json, os, signal, sys, time
world, stage, *files = sys.argv[1:]
how = json.load(open(world + "/behave.json")).get(stage, "")
with open(world + "/starts", "a") as log:
    log.write(stage + "\\n")
print("this is", stage, flush=True)
if how == "fail":
    sys.exit("ValueError: bad luck")
if how == "refuse" and os.path.exists(os.path.dirname(files[0]) + "/run.json"):
    sys.exit(2)
if how == "slow":
    def stop(*_):
        open(world + "/saved", "w").write(str(os.getsid(0)))
        sys.exit(75)
    signal.signal(signal.SIGTERM, stop)
    open(world + "/ready", "w").close()
    time.sleep(60)
if how != "nothing":
    for file in files:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        open(file, "w").close()
"""
RECORD = """
import os, sys
os.makedirs(sys.argv[1], exist_ok=True)
open(sys.argv[1] + "/record.json", "w").write(sys.argv[2])
"""
SMALL = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"


def _stage(name: str, kind: str = "train", **more) -> Stage:
    fields = {"scale": "coco", "data": (), "hours": 1.0, "hours_from": "", "hardware": "8 GPUs"}
    return Stage(id=name, kind=kind, config=SMALL, **(fields | more))


def _paper(*more: Stage, **fields) -> Paper:
    """rpn -> dump -> a, b; c on its own; and another system's row."""
    stages = [_stage("rpn"), _stage("dump", "proposals", model="rpn")]
    stages += [_stage(name, proposals="dump") for name in "ab"]
    stages += [_stage("c"), *more]
    mine = [stage.id for stage in (*stages[2:5], *more)]
    rows = [Row(id=name, name=name, facts={}, paper={"AP": 1.0}, stage=name) for name in mine]
    rows.append(Row(id="theirs", name="theirs", facts={}, paper={"AP": 1.0}, reference=True))
    table = Table(
        table="1", title="", dataset="COCO", split="minival",
        columns={"AP": Column(key="segm/AP")}, rows=tuple(rows),
    )  # fmt: skip
    known = {"data": {}, "weights": {}, "footnotes": {}, "comparisons": {}} | fields
    return Paper(tables={"1": table}, stages={stage.id: stage for stage in stages}, **known)


class World:
    """A folder in which stages are played by `STAGE`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.folder, self.patch = folder, monkeypatch
        self.place = Place(Path("out"), Path("out/records"))
        self.use(_paper())
        self.behave()
        monkeypatch.setattr(run_request, "gpus_there", lambda: 0)
        monkeypatch.setattr("mask_rcnn_ext.paper.schedule._LOOK_SECONDS", 0.01)
        monkeypatch.setattr(run_stage, "command_of", self._command)
        monkeypatch.setattr(run_stage, "gathering", self._gathering)

    def use(self, paper: Paper) -> None:
        self.paper = paper
        self.patch.setattr(run_request, "load_paper", lambda: paper)

    def behave(self, **how: str) -> None:
        (self.folder / "behave.json").write_text(json.dumps(how))

    def run(self, *words: str) -> int:
        parser = argparse.ArgumentParser()
        tables.add_arguments(parser)
        given = ["run", "--table", "1", "--out", "out", "--jobs", "1", *words]
        return tables.run(parser.parse_args(given))

    @property
    def starts(self) -> list[str]:
        """What was started since the last look."""
        path = self.folder / "starts"
        found = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def run_folder(self, name: str) -> Path:
        return self.place.run_of(self.paper.stages[name], 1)

    def record(self, name: str) -> Record:
        return read_record(Path(f"out/records/coco/{name}/seed_1")).record

    def _command(self, paper, place, stage, seed, machine, *, replace, smoke):
        files = [str(path) for path in outputs_of(place, stage, seed)]
        words = [sys.executable, "-S", "-c", STAGE, str(self.folder), stage.id, *files]
        return Command(words, {"FOR_STAGE": stage.id})

    def _gathering(self, paper, place, stage, seed, machine, *, key, code, smoke, hours, failed):
        record = Record(
            format=1, scale="coco", smoke=smoke, stage=stage.id, kind=stage.kind, seed=seed,
            key=key, code=code, state="failed" if failed else "finished", reason=failed,
            config=SMALL, overrides=[], results={}, hours=hours, device="cpu", machine="",
            commit=None, versions={}, datasets={}, started="",
        )  # fmt: skip
        target = place.records / ("smoke" if smoke else "coco") / stage.id / f"seed_{seed}"
        text = msgspec.json.encode(record).decode()
        return Command([sys.executable, "-S", "-c", RECORD, str(target), text])


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    return World(tmp_path, monkeypatch)


# ---- what runs


def test_each_stage_once_and_then_all_is_kept(world, capsys):
    assert world.run() == 0
    out = capsys.readouterr().out
    assert world.starts == ["rpn", "dump", "a", "b", "c"], "what most waits for first"
    assert "left out, reference: 1 theirs" in out or "another system's: 1 theirs" in out
    assert "5 finished" in out
    assert {world.record(name).state for name in ("rpn", "dump", "a", "b", "c")} == {"finished"}
    assert read_marker(world.run_folder("a")).key == world.record("a").key
    assert "this is a" in (world.run_folder("a") / "output.txt").read_text()
    assert world.run() == 0
    assert world.starts == []
    assert "kept: a, seed 1" in capsys.readouterr().out


def test_seeds_use_the_stages_of_their_seed_or_the_one_of_all(world):
    shared = [_stage("rpn", seeds="one"), _stage("dump", "proposals", model="rpn", seeds="one")]
    world.use(_paper(*shared))
    assert world.run("--row", "a", "--seeds", "3", "--jobs", "2") == 0
    assert sorted(world.starts) == ["a", "a", "a", "dump", "rpn"]
    records = sorted(path.parent.name for path in Path("out/records/coco/a").glob("*/record.json"))
    assert records == ["seed_1", "seed_2", "seed_3"]


def test_only_what_a_row_takes(world, capsys):
    assert world.run("--row", "C") == 0
    assert world.starts == ["c"]
    world.run("--row", "a", "c")
    assert world.starts == ["rpn", "dump", "a"]
    assert "kept: c" in capsys.readouterr().out


def test_a_dry_run_prints_commands_in_order_and_starts_nothing(world, monkeypatch, capsys):
    assert world.run("--row", "a", "--dry-run") == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("  ")]
    assert [re.search(r"OUTPUT_DIR (\S+)", line)[1] for line in lines] == [
        "out/runs/rpn/seed_1", "out/runs/dump/seed_1", "out/runs/a/seed_1",
    ]  # fmt: skip
    assert all(line.startswith("  python -m mask_rcnn_ext.tools train ") for line in lines)
    assert "3 stages: 0 kept, 3 to run, about 3 h" in out
    assert (world.starts, Path("out").exists()) == ([], False)


# ---- what is there already


def test_a_done_stage_without_its_record_is_only_recorded(world):
    world.run("--row", "c")
    Path("out/records/coco/c/seed_1/record.json").unlink()
    assert world.starts == ["c"]
    assert world.run("--row", "c") == 0
    assert world.starts == []
    assert world.record("c").state == "finished"


def test_a_record_alone_is_enough_unless_others_need_more(world, capsys):
    world.run("--row", "a", "c")
    for name in ("rpn", "dump", "a", "c"):
        for path in sorted(world.run_folder(name).rglob("*.p*")):
            path.unlink()
    world.starts  # noqa: B018
    assert world.run("--row", "a", "c") == 0
    assert world.starts == []
    capsys.readouterr()
    assert world.run("--row", "b") == 0
    assert world.starts == ["rpn", "dump", "b"]
    assert "to run: rpn, seed 1: its record is there, but" in capsys.readouterr().out


def test_a_folder_of_another_config_is_moved_aside(world, capsys):
    world.run("--row", "c")
    world.use(_paper(_stage("c", overrides={"SOLVER.MAX_ITER": 7})))
    assert world.run("--row", "c") == 0
    assert world.starts == ["c", "c"]
    old = world.run_folder("c").with_name("seed_1.old-1")
    assert (old / "model_final.pth").exists()
    out = capsys.readouterr().out
    assert "its record is of another config or of other data" in out
    assert str(old) in out


def test_records_of_another_code_version_are_not_kept(world, monkeypatch, capsys):
    world.run("--row", "c")
    monkeypatch.setattr(run_request, "code_hash", lambda: "other")
    monkeypatch.setattr("mask_rcnn_ext.tools.tables.kept.code_hash", lambda: "other")
    assert world.run("--row", "c") == 0
    assert world.starts == ["c", "c"]
    assert "another code version" in capsys.readouterr().out


@pytest.mark.parametrize(("how", "starts", "moved"), [("", 1, False), ("refuse", 2, True)])
def test_a_run_that_nobody_marked_goes_on_or_is_moved_aside(world, how, starts, moved):
    world.behave(c=how)
    folder = world.run_folder("c")
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("by hand")
    assert world.run("--row", "c") == 0
    assert len(world.starts) == starts
    old = folder.with_name("seed_1.old-1")
    assert ((old if moved else folder) / "run.json").read_text() == "by hand"
    assert old.exists() is moved
    assert (folder / "model_final.pth").exists()


# ---- failures


def test_a_failure_does_not_stop_the_others_and_is_tried_again(world, capsys):
    world.behave(dump="fail")
    assert world.run() == 1
    assert world.starts == ["rpn", "dump", "c"]
    out = capsys.readouterr().out
    assert "failed: dump, seed 1" in out
    assert "not run: a, seed 1: needs dump, seed 1" in out
    assert "  | this is dump" in out, "the end of its output"
    assert "2 finished, 1 failed, 2 not run" in out.replace("\n", " ") or "1 failed" in out
    assert (world.record("dump").state, world.record("dump").reason) == (
        "failed", "ValueError: bad luck",
    )  # fmt: skip
    world.behave()
    assert world.run() == 0
    assert world.starts == ["dump", "a", "b"]
    assert world.record("dump").state == "finished"


def test_one_that_leaves_nothing_has_failed(world, capsys):
    world.behave(c="nothing")
    assert world.run("--row", "c") == 1
    assert "it ended well, but out/runs/c/seed_1/model_final.pth is not there" in (
        capsys.readouterr().out
    )


def test_a_record_that_cannot_be_written_is_a_failure(world, monkeypatch, capsys):
    bad = Command([sys.executable, "-S", "-c", "raise SystemExit('mask-rcnn-ext: no space')"])
    monkeypatch.setattr(run_stage, "gathering", lambda *args, **more: bad)
    assert world.run("--row", "c") == 1
    assert "no record: mask-rcnn-ext: no space" in capsys.readouterr().out


# ---- stopping


def test_ctrl_c_lets_stages_save_and_the_same_command_goes_on(world, capsys):
    world.behave(dump="slow")

    def interrupt():
        while not (world.folder / "ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted, match="the same command again") as error:
        world.run("--row", "a")
    thread.join()
    assert error.value.exit_code == 75
    # In a session of its own: a terminal's Ctrl-C reaches it through us alone, once.
    assert int((world.folder / "saved").read_text()) != os.getsid(0)
    out = capsys.readouterr().out
    assert "stopped: dump, seed 1" in out
    assert "not run: a, seed 1: stopped before its turn" in out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "ours is gone"
    folder = world.run_folder("dump")
    assert read_marker(folder).state == "started"
    (folder / "checkpoint").touch()
    world.behave()
    world.starts  # noqa: B018
    assert world.run("--row", "a") == 0
    assert world.starts == ["dump", "a"]
    assert (folder / "checkpoint").exists(), "in the same folder"


def test_a_second_runner_is_refused(world):
    with (
        FolderLock(Path("out")),
        pytest.raises(UserError, match=rf"in use by .*process {os.getpid()}") as error,
    ):
        world.run()
    assert error.value.exit_code == 1
    assert world.starts == []


# ---- wrong calls, missing data


def test_weights_that_will_be_fetched_are_named_with_their_place(world, monkeypatch, capsys):
    monkeypatch.setenv("FVCORE_CACHE", str(world.folder / "cache"))
    some = Weights(address="detectron2://some/model.pkl")
    world.use(_paper(_stage("c", weights="some"), weights={"some": some}))
    place = f"{world.folder}/cache/detectron2/some/model.pkl"
    for words in (["--dry-run"], []):
        assert world.run("--row", "c", *words) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert "weights some (detectron2://some/model.pkl) fetched when needed; without" in told
        assert f"at {place}" in told
    assert world.run("--row", "c") == 0  # kept
    assert "weights" not in capsys.readouterr().out
    world.run_folder("c").joinpath("key.json").unlink()
    Path("out/records/coco/c/seed_1/record.json").unlink()
    Path(place).parent.mkdir(parents=True)
    Path(place).touch()
    assert world.run("--row", "c") == 0
    assert "weights" not in capsys.readouterr().out


def test_no_place_for_records_is_said_before_anything_runs(world):
    Path("afile").touch()
    for place in ("afile", "afile/records"):
        with pytest.raises(UserError, match=rf"cannot keep records in {place}: ") as error:
            world.run("--records", place)
        assert error.value.exit_code == 1
    assert (world.starts, Path("out").exists()) == ([], False)


def test_unknown_names_and_nothing_to_run(world):
    with pytest.raises(UsageError, match="there is no table '2q'"):
        world.run("--table", "2q")
    with pytest.raises(UsageError, match="there is no row 'their'.*did you mean theirs"):
        world.run("--row", "their")
    with pytest.raises(UsageError, match="nothing is left to run of --table 1 --row theirs"):
        world.run("--row", "theirs")
    with pytest.raises(UsageError, match="--num-gpus 2, but PyTorch sees 0"):
        world.run("--num-gpus", "2")
    with pytest.raises(UsageError, match="--hours 0"):
        world.run("--hours", "0")


def test_all_means_all_tables(world):
    assert world.run("--table", "ALL", "--row", "c") == 0
    assert world.starts == ["c"]


def test_missing_data_and_weights_are_told_before_anything(world, capsys):
    address = "https://cocodataset.org"
    coco = Data(sets=("coco_2014_train",), images=123287, gigabytes=19.5, address=address)
    mine = Weights(address="weights/mine.pth", sha256="abc123", note="trained by yourself")
    world.use(
        _paper(
            _stage("c", data=("coco",), weights="mine"),
            data={"coco": coco},
            weights={"mine": mine},
        )
    )
    with pytest.raises(UsageError) as error:
        world.run("--row", "a", "c")
    text = str(error.value)
    for part in (
        "123,287 images, 19.5 GB, https://cocodataset.org",
        f"missing below {world.folder}/data/",
        "coco/annotations/instances_train2014.json",
        "weights/mine.pth, sha256 abc123",
        f"put the file at {world.folder}/weights/mine.pth",
        "--data scenes",
    ):
        assert part in " ".join(text.split()), part
    assert (error.value.exit_code, world.starts) == (2, [])
    with pytest.raises(UsageError, match="is not there"):
        world.run("--row", "c", "--dry-run")
    assert "c, seed 1: runs" in capsys.readouterr().out, "the plan is shown all the same"


# ---- generated data


def _with_scenes(world: World, monkeypatch, script: str) -> None:
    make = Scenes(folder="scenes", images=2, val_images=1, size="32", seed=1)
    scenes = Data(sets=("scenes_train",), images=3, gigabytes=0.1, address="", make=(make, make))
    made = ("made",)
    world.use(_paper(_stage("c", data=made), _stage("d", data=made), data={"made": scenes}))
    command = Command([sys.executable, "-S", "-c", script, str(world.folder / "starts")])
    monkeypatch.setattr(run_stage, "commands_for_data", lambda *args: [command, command])


def test_generated_data_are_made_once_and_before(world, monkeypatch):
    _with_scenes(world, monkeypatch, "import sys; open(sys.argv[1], 'a').write('data ')")
    assert world.run("--row", "c", "d") == 0
    assert world.starts == ["data", "data", "c", "d"]


def test_without_its_data_a_stage_is_not_run(world, monkeypatch, capsys):
    _with_scenes(world, monkeypatch, "raise SystemExit('mask-rcnn-ext scenes: no space left')")
    assert world.run("--row", "c", "a") == 1
    assert world.starts == ["rpn", "dump", "a"]
    out = capsys.readouterr().out
    assert "not run: c, seed 1: needs data made" in out
    assert "data made failed: mask-rcnn-ext scenes: no space left" in out


def test_labels_are_registered(tmp_path):
    from mask_rcnn_ext.data.spec import parse_specs
    from mask_rcnn_ext.data.spec_file import read_documents

    place, stage = Place(tmp_path, tmp_path), _stage("d", "distill", model="c")
    place.run_of(stage, 1).mkdir(parents=True)
    with pytest.raises(UserError, match="does not say where the images are"):
        write_registry(place, stage, 1)
    images = str(tmp_path / "my: 'images'")
    place.distilled_of(stage, 1).write_text(json.dumps({"image_root": images}))
    write_registry(place, stage, 1)
    path = place.registry_of(stage, 1)
    ((where, content),) = read_documents(path)
    (spec,) = parse_specs(content, where, str(path.parent))
    assert (spec.name, spec.parts[0].annotations) == ("distilled_labels", "labels.json")
    assert spec.parts[0].images == images


# ---- one machine, a cluster


def test_cores_and_gpus_are_shared_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(run_process, "cores", lambda: 8)
    threads = [LocalLauncher(0, jobs, "cpu", 0, 0).environment(0) for jobs in (1, 3, 16)]
    assert [one["OMP_NUM_THREADS"] for one in threads] == ["8", "2", "1"]
    gpus = LocalLauncher(0, 3, "cuda", 2, 8)
    assert [gpus.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == [
        "0,1", "2,3", "4,5",
    ]  # fmt: skip
    assert "CUDA_VISIBLE_DEVICES" not in LocalLauncher(0, 3, "cuda", 4, 8).environment(0)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in LocalLauncher(0, 3, "cpu", 0, 0).environment(0)


@pytest.mark.parametrize(
    ("words", "device", "ends", "expected"),
    [
        (["--data", "scenes"], "cpu", 5, 4),
        (["--data", "scenes"], "cpu", 1, 1),  # a chain: each stage gets all cores
        (["--data", "scenes"], "cpu", 0, 1),
        (["--data", "scenes"], "cuda", 5, 1),
        (["--data", "scenes", "--jobs", "9"], "cpu", 1, 9),
        ([], "cpu", 5, 1),
        (["--launcher", "submitit"], "cuda", 5, 20),
    ],
)
def test_stages_at_once(monkeypatch, words, device, ends, expected):
    monkeypatch.setattr(run_work, "cores", lambda: 4)
    parser = argparse.ArgumentParser()
    tables.add_arguments(parser)
    args = parser.parse_args(["run", "--table", "1", *words])
    assert run_work.jobs_at_once(args, device, 20, ends) == expected


@pytest.mark.parametrize(
    ("words", "there", "expected"),
    [
        ([], 0, ("cpu", 1)),
        ([], 8, ("cuda", 8)),
        (["--jobs", "3"], 8, ("cuda", 2)),
        (["--num-gpus", "4"], 8, ("cuda", 4)),
        (["--data", "scenes"], 8, ("cuda", 1)),
        (["--launcher", "submitit", "--gpus-per-node", "4"], 0, ("cuda", 4)),
        (["--launcher", "submitit", "--gpus-per-node", "0"], 8, ("cpu", 1)),
    ],
)
def test_the_machine(monkeypatch, words, there, expected):
    monkeypatch.setattr(run_request, "gpus_there", lambda: there)
    parser = argparse.ArgumentParser()
    tables.add_arguments(parser)
    setting = run_request.setting_of(parser.parse_args(["run", "--table", "1", *words]))
    assert (setting.machine.device, setting.machine.gpus) == expected


def test_a_stage_as_a_job(monkeypatch, tmp_path):
    """submitit runs it in a process of the cluster; here it is called as such a process does."""
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")  # read when submitit is imported
    submitit = pytest.importorskip("submitit", reason="needs submitit, the extra slurm")
    place = argparse.Namespace(node=0, num_nodes=1, hostnames=["here"], job_id="1")
    monkeypatch.setattr(submitit, "JobEnvironment", lambda: place)
    monkeypatch.setenv("FOR_STAGE", "nobody")
    script = "import os; print('for', os.environ['FOR_STAGE'], flush=True)"
    output = tmp_path / "output.txt"
    words = [sys.executable, "-S", "-c", script]
    job = run_submitit.StageJob(words, {"FOR_STAGE": "c"}, str(output))
    assert job() == 0
    assert output.read_text().splitlines()[-1] == "for c"
    again = job.checkpoint().function
    assert isinstance(again, run_submitit.StageJob)
    assert (again.words, again.environment, again.output) == (
        words,
        {"FOR_STAGE": "c"},
        str(output),
    )
    bad = run_submitit.StageJob([*words[:-1], "raise SystemExit(2)"], {}, str(output))
    with pytest.raises(RuntimeError, match="ended with exit code 2") as error:
        bad()
    done = argparse.Namespace(done=lambda: True, exception=lambda: error.value)
    assert run_submitit.ClusterProcess(done, output).poll() == 2
    done.exception = lambda: None
    assert run_submitit.ClusterProcess(done, output).poll() == 0
    done.done = lambda: False
    assert run_submitit.ClusterProcess(done, output).poll() is None


@pytest.mark.slow
def test_stages_as_jobs_of_this_machine(world, capsys):
    """The whole way: submitit without SLURM."""
    world.patch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    pytest.importorskip("submitit", reason="needs submitit, the extra slurm")
    world.patch.setattr("shutil.which", lambda name: None)
    assert world.run("--row", "c", "--launcher", "submitit", "--gpus-per-node", "0") == 0
    assert world.starts == ["c"]
    assert "this is c" in (world.run_folder("c") / "output.txt").read_text()
    assert world.record("c").state == "finished"


# ---- what is said


def test_why_a_command_failed():
    assert reason_of(1, ["x", "mask-rcnn-ext train: no such file", "see below"]) == (
        "mask-rcnn-ext train: no such file"
    )
    assert reason_of(1, ["  File x", "torch.cuda.OutOfMemoryError: CUDA", ""]).startswith("torch")
    assert reason_of(3, ["last words"]) == "last words"
    assert reason_of(3, []) == "exit code 3, and it printed nothing"
    assert "memory" in reason_of(-signal.SIGKILL, ["last words"])
    assert "signal 15" in reason_of(-signal.SIGTERM, [])
    assert len(reason_of(1, ["x" * 9000])) < 1000


def test_the_end_of_a_long_output(tmp_path):
    (tmp_path / "long").write_bytes(b"\xff" * 50_000 + b"\n\none\ntwo\n")
    assert tail_of(tmp_path / "long", 2) == ["one", "two"]
    assert tail_of(tmp_path / "none", 2) == []


class _Training(run_stage.StageRun):
    """One that is some iterations far."""

    def __init__(self, done: int):
        self.done = done

    @property
    def progress(self):
        return self.done, 1000


def test_how_far_all_is():
    now = [0.0]
    with open(os.devnull, "w") as stream:
        status = run_status.Status(2, 4, trusts_hours=False, stream=stream, clock=lambda: now[0])
        status.started(Task("a", hours=1.0), _Training(0))
        status.started(Task("b", hours=1.0), _Training(0))
        waiting = [Task("c", hours=2.0)]
        assert status.line({"a": _Training(100)}, waiting) == "0 of 4 done; a 100/1000", (
            "nothing is known of this machine"
        )
        now[0] = 360.0
        line = status.line({"a": _Training(200)}, waiting)
        # 100 iterations took 6 minutes: 48 more for a, an hour or so for each estimated one.
        assert line.startswith("0 of 4 done; a 200/1000; about 1.8 h left"), line
        status.ended(Task("b", hours=1.0), End("finished"))
        assert status.line({}, []).startswith("1 of 4 done")


def test_progress_is_read_from_what_a_training_leaves(world, tmp_path):
    folder = world.run_folder("c")
    folder.mkdir(parents=True)
    run = run_stage.StageRun.__new__(run_stage.StageRun)
    run.folder, run._gathers, run._most = folder, False, None
    run.job = argparse.Namespace(stage=world.paper.stages["c"])
    assert run.progress is None
    (folder / "config.yaml").write_text("SOLVER: {MAX_ITER: 50}\n")
    (folder / "metrics.json").write_text('{"iteration": 9}\n{"iteration": 19, "lr": 0.1}\n')
    assert run.progress == (20, 50)
    (folder / "metrics.json").write_text('{"iteration": 9}\n{"iter')
    assert run.progress is None


def test_key_files_of_a_job_are_those_of_its_record(world):
    world.run("--row", "c")
    keys = Keys(world.paper, code=code_hash(), fingerprint=lambda name: "")
    assert world.record("c").key == keys.key_of("c", 1)
