"""The report: every cell says something, only records that count do, text of records stays text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browser import Browser, elements, without_scripts
from report_records import made_folder, report_of, write_made

from mask_rcnn_ext.paper import Paper, load_paper
from mask_rcnn_ext.paper.report import Report
from mask_rcnn_ext.paper.report_markdown import as_markdown, escape
from mask_rcnn_ext.paper.report_notes import NOTHING, SMOKE_SHORT
from mask_rcnn_ext.paper.report_numbers import as_numbers
from mask_rcnn_ext.paper.report_page import as_page
from mask_rcnn_ext.paper.report_summary import summary
from mask_rcnn_ext.paper.report_values import decimals, telling_facts


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper()


@pytest.fixture(scope="module")
def records(paper, tmp_path_factory) -> Path:
    return made_folder(tmp_path_factory.mktemp("report") / "records", paper)


@pytest.fixture(scope="module")
def report(paper, records) -> Report:
    return report_of(records, paper, tables=("1", "2b", "2c", "2d"), in_text=True)


@pytest.fixture(scope="module")
def markdown(report) -> str:
    return as_markdown(report, "tables.md", configs="../configs").text.decode()


@pytest.fixture(scope="module")
def page(report, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "tables.html"
    path.write_bytes(as_page(report, path.name))
    return path


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _section(markdown: str, title: str) -> str:
    found = re.search(rf"^##+ {title}.*?(?=^## |\Z)", markdown, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[0]


def _table(markdown: str, title: str, first: str) -> list[list[str]]:
    """Lines of the table of a section whose head has `first` in it, the head among them."""
    for block in _section(markdown, title).split("\n\n"):
        lines = [_cells(line) for line in block.splitlines() if line.startswith("|")]
        if lines and first in lines[0]:
            return [lines[0], *lines[2:]]
    raise AssertionError(f"{title}: no table with {first}")


# ---- figures


def test_figures_of_the_paper_and_ours_with_spread_and_differences(markdown):
    lines = {tuple(line[:2]): line[2:] for line in _table(markdown, "Table 2c", "of")}
    assert lines["row", "of"] == ["AP", "AP50", "AP75"]
    assert lines["roipool", "paper"] == ["26.9", "48.8", "26.4"]
    # 16.25, 16.5 and 16.75; 1.9 times that; less 1
    assert lines["roipool", "ours"] == ["16.5 ± 0.2", "31.4 ± 0.5", "15.5 ± 0.2"]
    assert lines["roialign-ave", "ours"][0] == "20.5 ± 0.2"
    assert lines["roialign-ave", "paper Δ"] == ["+3.4", "+2.4", "+5.1"]
    assert lines["roialign-ave", "ours Δ"] == ["+4.0", "+7.6", "+4.0"]
    assert lines["roipool", "paper Δ"] == lines["roipool", "ours Δ"] == ["base row"] * 3
    assert lines["roiwarp-max", "ours"][0] == "16.8"  # one seed has no spread
    assert "Δ: less the base row, roipool." in _section(markdown, "Table 2c")


def test_what_is_not_measured_says_why(markdown):
    lines = {tuple(line[:2]): line[2:] for line in _table(markdown, "Table 2c", "of")}
    assert lines["roiwarp-ave", "ours"] == ["failed"] * 3
    assert lines["roialign-max", "ours"] == ["stale"] * 3
    states = {line[0]: line[-2] for line in _table(markdown, "Table 2c", "state")}
    assert states["roipool"] == "3 seeds"
    assert states["roiwarp-ave"].startswith("failed: loss is not finite")
    assert states["roialign-max"] == "stale: code of commit 0123456"
    of_2d = {line[0]: line for line in _table(markdown, "Table 2d", "state")}
    assert of_2d["roipool"][2:] == ["not run"] * 6 + [of_2d["roipool"][-1]]
    assert of_2d["roialign"][-2].startswith("other config: Ablations/")
    of_1 = {tuple(line[:2]): line[2:] for line in _table(markdown, "Table 1", "of")}
    assert of_1["mnc", "reference"][0] == "24.6"


def test_no_cell_is_blank(markdown):
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(tables) > 100
    for line in tables:
        if line.startswith(("|  | diff", "|    | diff", "|     | diff")):
            continue  # above the claims' numbers
        assert all(_cells(line)), line


def test_records_that_do_not_count_are_listed_and_not_mixed_in(report, markdown):
    assert report.records == 10
    aside = {tuple(line[:2]): line[2] for line in _table(markdown, "Records that do not", "stage")}
    assert aside["small_mask_R_50_C4_roialign_max", "1"] == "stale: code of commit 0123456"
    assert aside["small_mask_R_50_C5", "1"].startswith("other config")
    assert aside["small_mask_R_50_C4_roiwarp_ave", "1"].startswith("failed: loss")
    assert len(aside) == 4  # with the head
    unread = _section(markdown, "Records that cannot be read")
    assert "- scenes/small_mask_R_50_C5/seed_2/record.json is not a whole record" in unread
    for figure in ("99.0", "88.0"):
        assert figure not in markdown
    assert "99.0" not in json.dumps(as_numbers(report))


def test_claims_come_first_with_interval_seeds_and_verdict(markdown):
    assert markdown.index("## Claims") < markdown.index("## Table 1")
    claims = {line[1]: line[2:] for line in _table(markdown, "Claims", "verdict")}
    subject = "mask AP of mask_R_50_C4 less mask_R_50_C4_roipool"
    paper, ours, seeds, verdict = claims[subject]
    assert (paper, seeds, verdict) == ("+3.0", "3", "**confirmed**")
    assert re.fullmatch(r"\+\d\.\d\d \(\+\d\.\d\d to \+\d\.\d\d\)", ours)
    lacking = claims["mask AP of mask_R_50_C5 less mask_R_50_C5_roipool"]
    assert lacking[2:] == ["0", "open"]
    assert "small_mask_R_50_C5_roipool" in _section(markdown, "Claims")
    assert "RoIAlign improves AP by about 3 points over RoIPool" in _section(markdown, "Claims")


def test_claims_of_a_report_on_some_tables_are_theirs(paper, records):
    sources = {one.source for one in report_of(records, paper, tables=("2c",)).claims}
    assert sources == {"roialign_gain"}


def test_where_it_was_measured_with_the_rows_of_each_machine(report, markdown):
    first, second = report.environments
    assert (first.letter, first.runs, second.letter, second.runs) == ("A", 9, "B", 1)
    text = _section(markdown, "Where it was measured")
    assert "2 threads a process, bfloat16" in text
    assert "numpy 2.4.6, torch 2.14.0" in text.replace("\n  ", " ")
    where = {line[0]: line[-3] for line in _table(markdown, "Table 2c", "state")}
    assert where["roipool"] == "A"
    assert where["roialign-ave"] == "A B"
    commits = {line[0]: line[2] for line in _table(markdown, "Table 2c", "state")}
    assert commits["roialign-ave"] == "0123456, fffffff"


def test_footnotes_below_each_table_are_those_of_the_rows(paper, markdown):
    section = _section(markdown, "Table 2c")
    notes = {line[0]: line[-1] for line in _table(markdown, "Table 2c", "state")}
    listed = re.findall(r"^(\d+)\. ", section.partition("One row over")[0], re.MULTILINE)
    assert listed == [f"{k}" for k in range(1, len(listed) + 1)]
    used = {number for row, text in notes.items() if row != "row" for number in text.split(", ")}
    assert used == set(listed)
    given = [[int(number) for number in text.split(", ")] for text in [*notes.values()][1:]]
    assert given == [sorted(numbers) for numbers in given]
    roiwarp = " ".join(paper.footnotes["roiwarp"].split())
    (number,) = re.findall(rf"(\d+)\. {re.escape(roiwarp[:40])}", section)
    assert number in notes["roiwarp-max"].split(", ")
    assert number not in notes["roipool"].split(", ")


def test_how_to_read_says_that_scenes_are_another_world(markdown):
    text = " ".join(_section(markdown, "How to read").split())
    assert "another world than COCO" in text
    assert "never absolute values" in text
    assert "minutes of training" in text


def test_configs_are_links_only_where_they_lead_somewhere(report, markdown):
    assert "[mask_rcnn_R_50_C4_iccv_roipool]" in markdown
    link = "../configs/Ablations/mask_rcnn_R_50_C4_iccv_roipool.yaml"
    assert f"\n[mask_rcnn_R_50_C4_iccv_roipool]: {link}\n" in markdown
    without = as_markdown(report, "tables.md").text.decode()
    assert "mask_rcnn_R_50_C4_iccv_roipool" in without
    assert "[mask_rcnn" not in without


def test_order_and_how_much_is_measured(report, markdown):
    text = _section(markdown, "Table 2c")
    assert "3 of 5 rows of ours measured" in text
    assert "Order by AP: 3 of 3 pairs of rows as in the paper." in text
    assert "3 of 5 rows of ours measured" in summary(report)


def test_nothing_was_run(paper, tmp_path):
    report = report_of(tmp_path, paper)
    text = as_markdown(report, "t.md").text.decode()
    assert NOTHING in text
    assert NOTHING in summary(report)
    states = [line[-2] for line in _table(text, "Table 2c", "state")[1:]]
    assert states == ["not run"] * 5
    assert as_page(report, "t.html")


def test_at_the_papers_scale_ours_less_the_papers(paper, tmp_path):
    write_made(tmp_path, paper, "mask_R_50_C4", 1, {"segm/AP": 29.8, "segm/AP50": 51.9})
    report = report_of(tmp_path, paper, "coco", ("2c",))
    text = as_markdown(report, "t.md").text.decode()
    lines = {tuple(line[:2]): line[2:] for line in _table(text, "Table 2c", "of")}
    assert lines["roialign-ave", "ours"] == ["29.8", "51.9", "no figure"]
    assert lines["roialign-ave", "Δ"] == ["−0.5", "+0.7", "no figure"]
    assert ("roialign-ave", "paper Δ") not in lines
    assert "another world" not in text
    drawn = ElementTree.fromstring(as_markdown(report, "t.md").files["table_2c.svg"])
    kinds = [one.get("class") for one in drawn.iter() if "plot-dot" in (one.get("class") or "")]
    assert sorted(kinds) == ["plot-dot ours"] + ["plot-dot paper"] * 5


def test_smoke_runs_are_marked_and_compared_with_nothing(paper, tmp_path):
    write_made(tmp_path, paper, "mask_R_50_C4", 1, {"segm/AP": 0.5}, smoke=True)
    report = report_of(tmp_path, paper, "smoke", ("2c",))
    text = as_markdown(report, "t.md").text.decode()
    assert report.records == 1
    assert text.count(SMOKE_SHORT) >= 3  # on top, in how to read, with the table
    assert "Δ" not in _section(text, "Table 2c")
    assert "Claims" not in text
    html = as_page(report, "t.html").decode()
    assert len(elements(html, "p", "warning")) >= 2
    assert SMOKE_SHORT in summary(report)
    assert as_numbers(report)["stand_in_data"] is True


# ---- text


def test_text_of_records_stays_text(markdown):
    assert "<Processor>" not in markdown
    assert "&lt;Processor>" in markdown
    for line in _table(markdown, "Table 2c", "state"):
        assert len(line) == 9  # no | of a reason divides it
    assert "<b>at" not in markdown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a | b", "a \\| b"), ("[x](y)", "\\[x\\](y)"), ("<i>&", "&lt;i>&amp;"), ("a\n\nb", "a b")],
)
def test_escape(text, shown):
    assert escape(text) == shown


def test_wrapped_lines_begin_no_list(paper, tmp_path):
    reason = " ".join(f"{'x' * k} - 1. + # > y" for k in range(1, 60))
    write_made(tmp_path, paper, "small_mask_R_50_C4", 1, {"segm/AP": 20.0}, machine=reason)
    text = as_markdown(report_of(tmp_path, paper, tables=("2c",)), "t.md").text.decode()
    item = _section(text, "Where it was measured").split("\n\n")[1]
    assert len(item.splitlines()) > 10
    for line in item.splitlines()[1:]:
        assert not re.match(r" *([-+#>]|\d+[.)]) ", line), line


def test_lines_are_short_enough_to_be_read(markdown):
    text = markdown.splitlines()[1:]  # the comment on top is one command
    assert max(len(line) for line in text if not line.startswith(("|", "["))) <= 100


def test_numbers_are_rounded_with_a_real_minus():
    assert decimals(-0.04, sign=True) == "0.0"
    assert decimals(-0.06, sign=True) == "−0.1"
    assert decimals(None) == "–"


def test_only_facts_that_tell_rows_apart_are_told(paper):
    assert telling_facts(paper.tables["2c"].rows) == ("align", "bilinear", "agg")
    assert telling_facts(paper.tables["2b"].rows) == ()


# ---- drawings


def test_a_drawing_for_each_table_and_its_trainings(report, markdown):
    written = as_markdown(report, "tables.md")
    named = re.findall(r"!\[[^]]+\]\(tables/([^)]+)\)", written.text.decode())
    assert sorted(named) == sorted(written.files)
    assert {"table_2c.svg", "curves_2c.svg", "table_2d_mask_AP.svg", "claims.svg"} <= {*named}
    drawn = ElementTree.fromstring(written.files["table_2c.svg"])
    kinds = [one.get("class") for one in drawn.iter()]
    assert kinds.count("plot-dot paper") == 5
    assert kinds.count("plot-dot ours") == 3
    assert kinds.count("plot-interval ours") == 2  # one row has a single seed
    lines = ElementTree.fromstring(written.files["curves_2c.svg"])
    curves = [one.get("class") or "" for one in lines.iter()]
    curves = [one for one in curves if "plot-curve" in one]
    assert sum("key" not in one for one in curves) == 3 + 1 + 3  # seeds of three rows
    assert sum("key" in one for one in curves) == 3


def test_pictures_are_files_only_on_request(report):
    assert not [name for name in as_markdown(report, "t.md").files if name.endswith(".webp")]
    files = as_markdown(report, "t.md", pictures=True).files
    (name,) = {name for name in files if "2c" in name and name.endswith(".webp")}
    assert name == "pictures_2c_roialign-ave.webp"
    assert files[name][8:12] == b"WEBP"


# ---- the page


def test_the_page_has_the_same_figures(report, page):
    html = page.read_text(encoding="utf-8")
    cells = [one.text for one in elements(html, "td")]
    assert "16.5 ± 0.2" in cells
    assert all(text.strip() for text in cells)
    assert [one.text for one in elements(html, "span", "confirmed")].count("confirmed") >= 1
    numbers = next(one for one in elements(html, "script") if one.get("id") == "numbers")
    assert json.loads(numbers.text) == json.loads(json.dumps(as_numbers(report)))
    assert elements(html, "img")[0]["src"].startswith("data:image/webp;base64,")


def test_the_page_needs_nothing_else_and_runs_no_text(page):
    html = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    for name, attribute in (("img", "src"), ("a", "href"), ("script", "src"), ("link", "href")):
        for one in elements(html, name):
            assert (one.get(attribute) or "#").startswith(("data:", "#")), one
    assert "<b>at</b>" not in html
    assert not elements(html, "processor")


def test_links_of_the_page_lead_somewhere(page):
    html = page.read_text(encoding="utf-8")
    ids = re.findall(r'id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    links = [one["href"][1:] for one in elements(html, "a")]
    assert set(links) <= set(ids)
    assert {"claims", "table-2c", "in-text", "aside", "configs"} <= set(links)
    configs = {one["id"]: one.text for one in elements(html, "pre")}
    roipool = [one for one in elements(html, "a") if one.text.endswith("C4_iccv_roipool")]
    (link,) = {one["href"][1:] for one in roipool}
    assert "POOLER_TYPE: RoIPool" in configs[link]


def test_in_a_browser(page, tmp_path):
    browser = Browser(tmp_path)
    number = re.search(r'href="#(config-\d+)"', page.read_text(encoding="utf-8"))[1]
    html = browser.dom(page, number)
    (root,) = elements(html, "html")
    assert "no-script" not in root.classes  # its script was allowed to run
    opened = [one for one in elements(html, "details") if "open" in one]
    assert len(opened) == 1
    assert opened[0].text.startswith("configs/")
    # Without the script all is there, and on a narrow screen nothing runs off the edge: tables
    # scroll in boxes of their own.
    narrow = browser.screenshot(without_scripts(page), size=(500, 2500))
    ground = narrow[0, 0]
    assert (narrow[:, -8:] == ground).all()
    assert (narrow[:, :300] != ground).any(axis=(1, 2)).mean() > 0.3


def test_a_page_opens_configs_by_its_script_alone(page):
    assert not [one for one in elements(page.read_text("utf-8"), "details") if "open" in one]
