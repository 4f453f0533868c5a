"""How processes are started."""

import pytest

from mask_rcnn_ext.engine import launch as our_launch


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "auto"),
        (("--dist-url", "tcp://127.0.0.1:5000"), "tcp://127.0.0.1:5000"),
        (("--num-machines", "2", "--dist-url", "tcp://a:1"), "tcp://a:1"),
    ],
)
def test_runs_of_one_machine_choose_a_free_port(monkeypatch, words, expected):
    """Two runs of one user would otherwise ask for the same one."""
    seen = {}
    monkeypatch.setattr(our_launch, "launch", lambda main, gpus, **kwargs: seen.update(kwargs))
    assert our_launch.parse_and_launch(["--config-file", "x.yaml", *words], print) == 0
    assert seen["dist_url"] == expected


def test_several_machines_keep_the_default_of_detectron2(monkeypatch):
    seen = {}
    monkeypatch.setattr(our_launch, "launch", lambda main, gpus, **kwargs: seen.update(kwargs))
    our_launch.parse_and_launch(["--config-file", "x.yaml", "--num-machines", "2"], print)
    assert seen["dist_url"].startswith("tcp://127.0.0.1:")
