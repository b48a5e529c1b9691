"""The site opens from disk: its links lead somewhere, its tables and words explain themselves, it asks no network."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from browser import CHROMIUM, CONTRAST, Page, browser
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ecgstudy.study.config import STAGES
from ecgstudy.study.report import build_report
from ecgstudy.study.site import WIDGETS, dress_table, notebook_page, read_words
from ecgstudy.study.stage import Stage
from ecgstudy.study.words import table_html

FIRST = STAGES[0].name
ROWS = pd.DataFrame(
    {
        "attacker": ["resnet1d + beatnet | beatcnn_max", "template", "<b>unknown</b>"],
        "rank1": [0.5, 0.25, None],
        "rank1_low": [0.4, 0.2, None],
        "rank1_high": [0.6, 0.3, None],
        "why": ["", "", "a sentence that is much longer than any number and needs some room to be read"],
    }
)


def _executed(folder: Path) -> nbformat.NotebookNode:
    """Make an executed notebook with a table, the stage's figure, a viewer and a word to explain."""
    picture = base64.b64encode(next((folder / "figures").glob("*.png")).read_bytes()).decode()
    html = table_html(pd.concat([ROWS] * 8), "All attackers.")
    outputs = [
        new_output("display_data", {"text/html": html, "text/plain": "a table"}),
        new_output("display_data", {"image/png": picture}, metadata={"image/png": {"alt": 'a "rising" line'}}),
        new_output("display_data", {WIDGETS: {"model_id": "7"}, "text/plain": "Box()"}),
    ]
    cells = [new_markdown_cell("# 1. A stage\n\nThe EER, and the EER again."), new_code_cell("x = 1", outputs=outputs)]
    return new_notebook(cells=[*cells, new_markdown_cell("## More\n\nWhat a gallery is.")])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a site of one stage whose notebook has a table, a figure and a viewer."""
    root = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGSTUDY_RESULTS", str(root))
        stage = Stage.open(FIRST, {"profile": "demo", "seed": 0, "device": "cpu", "fs": 100.0})
        stage.metric("c.eer", 0.0123, 0.01, 0.02, n=1234, unit="share")
        stage.headline("c.eer", "equal error rate")
        stage.finding("Half of it & more.")
        stage.table("attackers", pd.concat([ROWS] * 8), "All attackers.")
        figure, ax = plt.subplots()
        ax.plot([0, 1])
        stage.figure("line", figure, "a caption", "a rising line")
        stage.finish()
        folder = root / "demo" / FIRST
        nbformat.write(_executed(folder), folder / f"{FIRST}.ipynb")
        (root / "demo" / "old.html").write_text("of an older site")
        build_report("demo")
        yield root / "demo"


def _soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(), "html.parser")


def test_every_link_and_picture_of_every_page_is_there_and_nothing_is_remote(site: Path) -> None:
    pages = sorted(path.name for path in site.glob("*.html"))
    assert pages == [f"{FIRST}.html", "glossary.html", "index.html", "search.html"]
    for page in pages:
        soup = _soup(site / page)
        for node in soup.select("[href], [src]"):
            target = node.get("href") or node.get("src")
            remote = target.startswith(("http:", "https:", "//"))
            assert not remote or (node.name == "a" and "external" not in target), target
            if not remote and not target.startswith(("data:", "#", "mailto:")):
                file, _, anchor = target.partition("#")
                file = file.partition("?")[0] or page
                assert (site / file).is_file(), f"{page}: {target}"
                assert not anchor or _soup(site / file).find(id=anchor), f"{page}: {target}"
        assert all(image.get("alt") for image in soup.select("article img"))
        assert "By the ecgstudy authors" in " ".join(soup.get_text(" ").split())


def test_a_notebook_opens_in_short_folds_its_code_and_shows_the_stages_own_figure(site: Path) -> None:
    article = _soup(site / f"{FIRST}.html").find("article")
    text = " ".join(article.get_text(" ").split())
    assert text.index("A stage") < text.index("In short") < text.index("The EER")
    assert "equal error rate : 1.2 % (95 % interval 1.0 to 2.0)." in text
    assert article.select_one("details.hide summary")
    link = article.select_one("figure a")
    assert link["href"] == f"{FIRST}/figures/line.png"
    assert link.img["alt"] == 'a "rising" line'
    assert not (site / "_images").exists()
    assert "A viewer stands here in JupyterLab" in text
    assert len(article.select("a.word[title]")) == len({link.string for link in article.select("a.word")})
    assert [link.string for link in article.select("a.word")].count("EER") == 1


def test_a_picture_that_no_figure_of_the_stage_is_stays_in_the_notebook(tmp_path: Path) -> None:
    picture = base64.b64encode(b"another picture").decode()
    cell = new_code_cell("", outputs=[new_output("display_data", {"image/png": picture})])
    notebook = notebook_page(new_notebook(cells=[new_markdown_cell("# T"), cell]), STAGES[0], tmp_path, "short")
    assert notebook.cells[1].outputs[0]["data"]["image/png"] == picture


def test_tables_say_code_names_in_words_show_their_csv_and_stay_escaped(tmp_path: Path) -> None:
    soup = BeautifulSoup(table_html(ROWS.assign(rank1=0.9), "All attackers."), "html.parser")
    ROWS.to_csv(tmp_path / "attackers.csv", index=False)
    dress_table(soup, soup.table, {"All attackers.": "attackers.csv"}, tmp_path)
    cells = [row.find_all("td") for row in soup.select("tbody tr")]
    told = "residual network + network on averaged beats | network on single beats (likeliest recording)"
    assert cells[0][0].get_text() == told
    assert cells[0][0].span["title"] == "resnet1d + beatnet | beatcnn_max"
    assert cells[1][0].get_text() == "comparison of average beats"
    assert cells[2][0].get_text() == "<b>unknown</b>"
    assert [row[1].get_text() for row in cells] == [
        "50.0 % (40.0\xa0to\xa060.0)",
        "25.0 % (20.0\xa0to\xa030.0)",
        "-",
    ]
    assert cells[0][1]["class"] == "number"
    assert cells[2][2]["class"] == "long"
    assert soup.caption.a["href"] == "attackers.csv"
    assert soup.find("style") is None
    assert soup.table.parent["class"] == ["wide"]


def test_a_table_whose_file_holds_nothing_stays_as_its_notebook_shows_it(tmp_path: Path) -> None:
    (tmp_path / "nothing.csv").write_text("\n")
    for file in ("nothing.csv", "gone.csv"):
        soup = BeautifulSoup(table_html(ROWS, "All attackers."), "html.parser")
        dress_table(soup, soup.table, {"All attackers.": file}, tmp_path)
        assert len(soup.select("tbody tr")) == len(ROWS)


def test_every_code_name_stands_once_and_every_word_has_a_meaning() -> None:
    meanings, names = read_words()
    assert all(meanings.values())
    assert len({term.lower() for term in meanings}) == len(meanings)
    assert {"cross_day", "semi_informed", "transecg", "random_windows"} <= names.keys()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_every_page_at_both_widths_and_asks_nobody(site: Path) -> None:
    with browser() as page:
        for name in (f"{FIRST}.html", "glossary.html", "index.html"):
            for width, scheme in ((1366, "light"), (390, "dark")):
                page.open(f"{site / name}", width, scheme)
                assert page.ask("document.documentElement.scrollWidth") <= width, (name, width)
                assert page.ask(CONTRAST) == [], (name, scheme)
                broken = "[...document.images].filter((image) => image.complete && !image.naturalWidth).length"
                assert page.ask(broken) == 0
        _sort_and_unfold(page, site)
        page.open(f"{site / FIRST}.html", 720, media="print")
        assert page.ask("getComputedStyle(document.querySelector('div.wide')).overflowX") == "visible"
        assert page.ask("[...document.querySelectorAll('tbody tr')].every((row) => row.checkVisibility())") is True
        page.open(f"{site / 'search.html'}?q=equal+error+rate", 1366)
        found = "new Promise((done) => setTimeout(() => done(document.querySelectorAll('ul.search li').length), 2000))"
        assert page.ask(found) >= 2
        assert page.requests == []
        assert page.errors == []


def _sort_and_unfold(page: Page, site: Path) -> None:
    """Unfold the long table, and sort it by a click on a heading: by numbers, undefined ones last."""
    page.open(f"{site / FIRST}.html", 1366)
    shown = "[...document.querySelectorAll('tbody tr')].filter((row) => row.checkVisibility()).length"
    assert page.ask(shown) == 10
    page.ask("document.querySelector('button.more').click()")
    assert page.ask(shown) == 24
    page.ask("document.querySelectorAll('thead button')[1].click()")
    column = page.ask("[...document.querySelectorAll('tbody tr')].map((row) => row.cells[1].innerText)")
    values = [float(match[0]) for text in column if (match := re.match(r"[\d.]+", text))]
    assert values == sorted(values)
    assert column[-1] == "-"
