"""Reading an annotation file where a person waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...data.coco_table import CocoTable


def read_with_progress(json_file: str) -> CocoTable:
    """The file's table; shows how far it is on stderr where that is a terminal.

    Raises:
        DataError: no such file, or no annotation file
    """
    from tqdm import tqdm

    from ...data.coco_table import read_coco_table

    with tqdm(desc="annotations", unit="", unit_scale=True, disable=None, leave=False) as bar:

        def show(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        return read_coco_table(json_file, show)
