"""Executed notebooks as HTML pages that open from a local file, without network or server."""

from jinja2 import FileSystemLoader
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from ecgstudy.study.paths import PACKAGE_ROOT

TEMPLATES = PACKAGE_ROOT / "templates"


def notebook_html(notebook: NotebookNode, title: str) -> str:
    """Render an executed notebook with the study's page template.

    Parameters
    ----------
    notebook : NotebookNode
        The executed notebook.
    title : str
        Page title used where the notebook has no heading of its own.
    """
    exporter = HTMLExporter(
        extra_loaders=[FileSystemLoader(TEMPLATES)],
        template_file="notebook.html.j2",
        language_code="en",
        embed_images=True,
    )
    body, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": heading_of(notebook) or title}})
    return body


def heading_of(notebook: NotebookNode) -> str:
    """Text of the notebook's first level-1 heading, "" where there is none."""
    for cell in notebook.cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("# "):
                return line[2:].strip()
    return ""
