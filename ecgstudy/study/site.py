"""Pages of the report: executed notebooks and the front page, built by Sphinx to open from disk without a network."""

import base64
import html
import io
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ecgstudy.errors import StudyError
from ecgstudy.study.config import TEMPLATES, StageInfo
from ecgstudy.study.words import table_html

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from nbformat import NotebookNode
    from sphinx.application import Sphinx

WIDGETS = "application/vnd.jupyter.widget-view+json"
SETTINGS: dict[str, Any] = {
    "project": "ecgstudy",
    "author": "the ecgstudy authors",
    "extensions": ["myst_nb", "sphinx_design", "sphinx_togglebutton"],
    "myst_enable_extensions": ["colon_fence"],
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},  # the default asks the network for scripts
    "suppress_warnings": ["myst.header", "mystnb.unknown_mime_type"],
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {"use_download_button": False, "use_fullscreen_button": False, "navbar_persistent": []},
    "html_context": {"default_mode": "auto"},
    "html_css_files": ["site.css"],
    "html_js_files": ["site.js"],
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_show_search_summary": False,  # a page from disk may not read its neighbours
    "html_use_index": False,
    "html_permalinks": False,
    "togglebutton_hint": "show",
}
KEPT = ("_static", "_images", "_sphinx_design_static", "searchindex.js")
_UNUSED = ("*.map", "locales", "docutils.conf", "*.po", "*.mo")
_NUMBER = re.compile(r"[-\d][^a-z]{0,12}(\([-\d.,]+ to [-\d.,]+\))?$")
_CODE = re.compile(r"[a-z]+(_[a-z]+)+")
_JOINED = (" + ", " | ")
_ENDINGS = ("_max", "_mean", "_normalised")
"""Endings of the names of attackers, each in ``templates/words.csv``."""
_ENGLISH = ("best", "enrolled", "majority", "probes", "rhythm", "template", "untrained")
"""Code names that sentences use as words."""
_LONG = 60
_TEXTS = dict.fromkeys(("record_id", "commit", "version"), str)
_NO_TERMS = {"a", "code", "pre", "h1", "h2", "h3", "h4", "figcaption", "script", "style", "svg", "button", "summary"}


def build_site(source: Path, target: Path, title: str, captions: Mapping[str, Mapping[str, str]]) -> None:
    """Build the pages of `source` (Markdown and notebooks) and put them into the folder `target`, ``index.html`` last.

    Parameters
    ----------
    source : Path
        Folder with ``index.md``; gets what Sphinx leaves over.
    target : Path
        Folder of a profile's results; pages of an older site there are replaced, stages' folders stay.
    title : str
        Name of the site.
    captions : mapping
        By page: CSV file, as a path in `target`, by the caption of its table.
    """
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    built, told = source / "_site", io.StringIO()
    static = source / "_own"
    static.mkdir()
    for name in ("site.css", "site.js"):
        shutil.copyfile(TEMPLATES / name, static / name)
    settings = SETTINGS | {"html_title": title, "html_static_path": [str(static)]}
    settings["exclude_patterns"] = ["_own", "_site", "_doctrees"]
    with patch_docutils(), docutils_namespace():
        app = Sphinx(source, None, built, source / "_doctrees", "html", settings, status=None, warning=told)
        app.connect(
            "html-page-context",
            lambda app, page, _template, context, _tree: _dress_page(
                app, page, context, captions.get(page, {}), target
            ),
        )
        app.build()
    if app.statuscode or not (built / "index.html").is_file():
        raise StudyError(f"The pages of {target} could not be built: {told.getvalue().strip()}")
    for pattern in _UNUSED:
        for file in [*(built / "_static").rglob(pattern)]:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    for older in target.glob("*.html"):
        older.unlink()
    for made in sorted(built.iterdir(), key=lambda path: path.name == "index.html"):
        if made.name in KEPT or made.suffix == ".html":
            shutil.rmtree(target / made.name, ignore_errors=True)
            shutil.move(made, target / made.name)


def _dress_page(app: "Sphinx", page: str, context: dict, files: Mapping[str, str], folder: Path) -> None:
    """Give the tables of a page their look and links, and the first mention of each word its meaning."""
    from bs4 import BeautifulSoup

    if not context.get("body"):
        return
    soup = BeautifulSoup(context["body"], "html.parser")
    for table in soup.find_all("table"):
        dress_table(soup, table, files, folder)
    for code in soup.find_all("code", string=re.compile(r"^tables/\w+\.csv$")):
        code.wrap(soup.new_tag("a", href=f"{page}/{code.get_text()}"))
    if page != "glossary":
        terms = app.env.get_domain("std").get_objects()
        _explain(soup, {name: anchor for name, _, kind, _, anchor, _ in terms if kind == "term"})
    context["body"] = str(soup).replace(" %", "\xa0%")


def dress_table(soup: "BeautifulSoup", table: "Tag", files: Mapping[str, str], folder: Path) -> None:
    """Put a table into a box that scrolls, say code names in words, and link its CSV file, found by the caption.

    What the file holds is what is shown, so that all pages write numbers alike, whenever their notebooks were run.
    """
    for style in table.find_previous_siblings("style"):
        style.decompose()
    caption = table.caption.get_text().strip() if table.caption else ""
    if caption in files:
        with suppress(FileNotFoundError, pd.errors.EmptyDataError):  # a file taken away, a table without columns
            frame = pd.read_csv(folder / files[caption], dtype=_TEXTS, keep_default_na=False, na_values=[""])
            written = type(soup)(table_html(frame, caption), "html.parser").table
            table.replace_with(written)
            table = written
        table.caption.extend([" ", soup.new_tag("a", href=files[caption], attrs={"class": "csv"}, string="CSV")])
    for part in table.find_all(True):
        part.attrs = {key: value for key, value in part.attrs.items() if key in ("scope", "title", "href")}
    for cell in table.find_all(["td", "th"]):
        text = cell.get_text().strip()
        kind = _kind(text) if cell.name == "td" else ""
        if kind:
            cell["class"] = kind
        if kind == "number":  # breaks before its interval only
            cell.string = text.replace(" to ", "\xa0to\xa0")
        _in_words(soup, cell)
    for heading in table.select("thead th"):
        heading["scope"] = "col"
    table["class"] = "data"
    table.wrap(soup.new_tag("div", attrs={"class": "wide", "tabindex": "0"}))


def _kind(text: str) -> str:
    """Say what a cell holds, for its width: a number, words, a sentence, or ("") a word or two."""
    if _NUMBER.match(text):
        return "number"
    return "long" if len(text) > _LONG else "words" if len(text) > _LONG / 4 else ""


def _in_words(soup: "BeautifulSoup", cell: "Tag") -> None:
    """Say a cell's code names (joined by " + " and " | ") in words, the names in the tooltip."""
    if cell.find(True) or not cell.string:
        return
    text = cell.string.strip()
    parts = [part if part in _JOINED else _spoken(part) for part in re.split(r"( \+ | \| )", text)]
    if all(parts):
        cell.string.replace_with(soup.new_tag("span", title=text, string="".join(parts)))


def prose_in_words(text: str) -> str:
    """Say the code names in a sentence in words: of cohorts, models and protocols that are no English words."""
    return re.sub(r"(?<![\w/.])[a-z]\w+(?![\w/]|\.\w)", lambda found: _named(found[0]) or found[0], text)


def _named(code: str) -> str:
    """Words for a code name that no English sentence holds, "" where it is none."""
    return "" if code in _ENGLISH else _from_list(code)


def _from_list(code: str) -> str:
    """Words for a code name of the list, also with endings that the list knows, as "_max"; "" where it is none."""
    names, endings = read_words()[1], []
    while code not in names:
        ending = next((ending for ending in _ENDINGS if code.endswith(ending)), None)
        if ending is None:
            return ""
        endings, code = [names[ending], *endings], code.removesuffix(ending)
    return names[code] + (f" ({', '.join(endings)})" if endings else "")


def _spoken(name: str) -> str:
    """Code name in words, "" where it is none."""
    return _from_list(name.replace(" ", "_")) or (name.replace("_", " ") if _CODE.fullmatch(name) else "")


def _explain(soup: "BeautifulSoup", anchors: Mapping[str, str]) -> None:
    """Link the first mention of each word of the glossary on a page, its meaning in the tooltip."""
    meanings, left = read_words()[0], set(anchors)
    pattern = re.compile(rf"\b({'|'.join(sorted(map(re.escape, anchors), key=len, reverse=True))})\b")
    for text in soup.find_all(string=pattern):
        if any(parent.name in _NO_TERMS for parent in text.parents):
            continue
        found = next((match for match in pattern.finditer(text) if match[1] in left), None)
        if found:
            left.discard(found[1])
            about = {"href": f"glossary.html#{anchors[found[1]]}", "title": meanings[found[1]], "class": "word"}
            text.replace_with(
                text[: found.start()], soup.new_tag("a", attrs=about, string=found[1]), text[found.end() :]
            )


@cache
def read_words() -> tuple[dict[str, str], dict[str, str]]:
    """Meanings by word, and words by code name, from ``templates/words.csv``."""
    words = pd.read_csv(TEMPLATES / "words.csv", keep_default_na=False)
    codes = words.assign(codes=words["codes"].str.split()).explode("codes")
    return dict(zip(words["term"], words["meaning"], strict=True)), dict(
        zip(codes["codes"], codes["term"], strict=True)
    )


def glossary_page() -> str:
    """Markdown of the glossary."""
    entries = "\n\n".join(f"{term}\n  {meaning}" for term, meaning in read_words()[0].items())
    return f"# Glossary\n\nWhat the words of this report mean.\n\n```{{glossary}}\n:sorted:\n\n{entries}\n```\n"


def notebook_page(notebook: "NotebookNode", info: StageInfo, folder: Path, short: str) -> "NotebookNode":
    """Copy of an executed notebook for the site: "in short" on top, code folded away, figures from the stage's files.

    Parameters
    ----------
    notebook : NotebookNode
        The executed notebook; its first cell begins with the title.
    info : StageInfo
        Its stage.
    folder : Path
        The stage's results, whose figures stand in for the pictures that the notebook holds a second time.
    short : str
        Markdown of what stands on top.
    """
    figures = {path.read_bytes(): path for path in (folder / "figures").glob("*.png")}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            for output in cell.outputs:
                data = output.get("data", {})
                if data.pop(WIDGETS, None):
                    data.clear()
                    data["text/markdown"] = "*A viewer stands here in JupyterLab (`make lab`).*"
                figure = figures.get(base64.b64decode(data.get("image/png", "")))
                if figure:
                    alt = html.escape(output.metadata.get("image/png", {}).get("alt", ""))
                    file = f"{info.name}/figures/{figure.name}"
                    picture = f'<img src="{file}" alt="{alt}">'
                    data.clear()
                    data["text/html"] = f'<figure><a href="{file}" title="open large">{picture}</a></figure>'
    title, _, prose = notebook.cells[0].source.partition("\n")
    notebook.cells[0].source = "\n".join([title, "", short, prose])
    return notebook
