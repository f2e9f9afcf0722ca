"""Chapters keep the numbers of the plan: chapter 9 is 9 before chapter 2 is written.

Sphinx numbers what is in the table of contents from 1 on. The setting
`chapter_numbers` (page: number) replaces the first part of each of its numbers; those
of figures, equations and theorems follow. A number may be a text: further pages of
chapter 9 are "9*" and "9**".
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx_external_toc.collectors import TocTreeCollectorWithStyles as Collector


def renumber(env: BuildEnvironment, page: str, number: int | str) -> None:
    """Let every section number of a page begin with `number`."""
    if page not in env.titles or "secnumber" not in env.titles[page]:
        raise ExtensionError(f"chapter_numbers: {page} is no numbered page.")

    def moved(old):  # None for a heading without number
        return old and type(old)([number, *old[1:]])

    numbers = env.toc_secnumbers[page]
    env.toc_secnumbers[page] = {anchor: moved(old) for anchor, old in numbers.items()}
    env.titles[page]["secnumber"] = moved(env.titles[page]["secnumber"])
    for reference in env.tocs[page].findall(nodes.reference):
        if "secnumber" in reference:
            reference["secnumber"] = moved(reference["secnumber"])


def install(app: Sphinx) -> None:
    # Jupyter Book uses the collector of sphinx-external-toc in place of Sphinx's.
    assign = Collector.assign_section_numbers

    def assign_and_renumber(self, env: BuildEnvironment) -> list[str]:
        rewritten = assign(self, env)
        for page, number in env.config.chapter_numbers.items():
            renumber(env, page, number)
        return rewritten

    Collector.assign_section_numbers = assign_and_renumber


def setup(app: Sphinx) -> dict:
    app.add_config_value("chapter_numbers", {}, "env", dict)
    app.connect("builder-inited", install)
    return {"version": "1", "parallel_read_safe": True}
