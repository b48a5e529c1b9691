"""A viewer for JupyterLab: pick person, method and beat."""

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from ipywidgets import Dropdown, HBox, IntSlider, Output, VBox

from ecgstudy.attribution.cases import Case
from ecgstudy.attribution.figures import beat_figure, person_beats
from ecgstudy.study.parallel import in_batch


def show_viewer(case: Case) -> None:
    """Show the viewer where somebody can use it; the rendered report has a static figure in its place."""
    if not in_batch():
        display(viewer(case))


def viewer(case: Case) -> VBox:
    """Build controls over a picture of one beat coloured by relevance; persons are numbered, not named.

    Parameters
    ----------
    case : Case
        What is explained.
    """
    persons = np.unique(case.persons)
    person = Dropdown(options=[(f"person {n + 1}", name) for n, name in enumerate(persons)], description="person")
    method = Dropdown(options=[(name.replace("_", " "), name) for name in case.relevance], description="method")
    beat = IntSlider(min=1, max=1, description="beat", continuous_update=False)
    picture = Output()

    def draw(_: object = None) -> None:
        beats, relevance = person_beats(case, method.value, person.value)
        beat.max = max(1, len(beats))
        with picture:
            picture.clear_output(wait=True)
            if not len(beats):
                print("No whole beat of this person has a relevance by this method.")
                return
            figure = beat_figure(beats[beat.value - 1], relevance[beat.value - 1], case.fs)
            display(figure)
            plt.close(figure)

    for control in (person, method, beat):
        control.observe(draw, names="value")
    draw()
    return VBox([HBox([person, method, beat]), picture])
