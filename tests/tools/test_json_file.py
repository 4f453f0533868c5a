"""--json FILE: what cannot be written is named, and ends no command with a traceback."""

from __future__ import annotations

import json
import re

import pytest

from mask_rcnn_ext.errors import UserError
from mask_rcnn_ext.tools.json_file import write_json_file


def test_written_and_replaced(tmp_path):
    for value in ({"a": 1}, [2.5]):
        write_json_file(tmp_path / "one.json", value)
        assert json.loads((tmp_path / "one.json").read_text()) == value
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


def test_what_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "gone" / "one.json"
    with pytest.raises(UserError, match=rf"^cannot write {re.escape(str(path))}: No such file"):
        write_json_file(path, {})
