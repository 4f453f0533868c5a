"""Paths and commands in the documents exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mask_rcnn_ext.config import load_config
from mask_rcnn_ext.tools.cli import VERBS, build_parser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "datasets/README.md"]
    + [ROOT / "third_party/detectron2/README.md"]
)
# What a document may name although it is not in the repository: made by a run, or the user's own.
MADE = ("output/", "datasets/scenes", "datasets/coco", "my/", "wheelhouse", "inference/")
FOLDERS = ("projects", "configs", "datasets", "docs", "tests", "third_party", "output", "my")


def _commands(text: str) -> list[str]:
    """Lines of fenced blocks, continued lines joined, comments dropped."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)
    shell = [block for language, block in blocks if language in ("", "bash", "sh", "console")]
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if line.strip()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_paths_exist(document):
    text = document.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    for link in links:
        assert (document.parent / link).exists(), f"{document.name} links to {link}"
    for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./*-]+)`", text):
        if path.startswith(MADE) or "*" in path:
            continue
        assert (ROOT / path).exists(), f"{document.name} names {path}"


def test_there_are_documents_with_commands():
    commands = [c for document in DOCUMENTS for c in _commands(document.read_text())]
    assert sum("train_net.py" in command for command in commands) >= 2
    assert sum("mask-rcnn-ext" in command for command in commands) >= 2


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_parse(document):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in _commands(document.read_text()):
        words = shlex.split(command)
        while words and re.fullmatch(r"\w+=.*", words[0]):  # VARIABLE=value in front
            words.pop(0)
        if words[:1] == ["make"]:
            for word in words[1:]:
                assert "=" in word or word in targets, command
        if words[:1] == ["mask-rcnn-ext"] and not words[1].startswith("-"):
            assert words[1] in VERBS, command
            if words[1] not in ("train",) and "--help" not in words:
                build_parser().parse_args(words[1:])
        if "train_net.py" in " ".join(words[:2]) or words[:2] == ["mask-rcnn-ext", "train"]:
            _check_training(words, command)


def _check_training(words: list[str], command: str) -> None:
    from mask_rcnn_ext.engine.arguments import argument_parser

    args = argument_parser().parse_args(words[2 if words[0] != "train_net.py" else 1 :])
    if args.config_file and not args.config_file.startswith("output/"):
        assert load_config(args.config_file, args.opts), command
