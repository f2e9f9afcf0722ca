"""The library's reference: signatures and docstrings, read and not imported.

Docstrings are MyST, with formulas, and are parsed as such. Every name gets an anchor,
an entry of the inventory (`objects.inv`, domain `py`) and a link to its source.
"""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from tables import parse

WIDTH = 72
# A display, or a formula in the text; neither goes beyond its paragraph's end.
FORMULA = re.compile(r"\$\$.*?\$\$|\$(?:[^$\n]|\n(?!\s*\n))+\$", re.DOTALL)


@cache
def _keys() -> frozenset[str]:
    """Of the bibliography's entries."""
    text = (Path(__file__).parents[1] / "references.bib").read_text("utf-8")
    return frozenset(re.findall(r"^@\w+\{([^,\s]+),", text, re.MULTILINE))


def docstring(node: ast.AST) -> str:
    """Its text, each formula in a line: one that begins with a plus opens a list. Keys
    of the bibliography become citations."""

    def joined(formula: re.Match) -> str:
        display = formula[0].startswith("$$")
        return formula[0] if display else re.sub(r"\s*\n\s*", " ", formula[0])

    def cited(code: re.Match) -> str:
        return f"{{cite:t}}{code[0]}" if code[1] in _keys() else code[0]

    text = FORMULA.sub(joined, ast.get_docstring(node) or "")
    return re.sub(r"(?<![`}])`(\w+)`(?!`)", cited, text)


def signature(node: ast.FunctionDef, name: str) -> str:
    """`name(arguments) -> result`, one argument a line where it is long."""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = [a for a in _arguments(node.args) if a != "self"]
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) <= WIDTH:
        return line
    return "\n    ".join([f"{name}(", *(f"{a}," for a in arguments)]) + f"\n){result}"


def _arguments(args: ast.arguments) -> list[str]:
    positional = [*args.posonlyargs, *args.args]
    fill = [None] * (len(positional) - len(args.defaults))
    found = list(zip(positional, [*fill, *args.defaults], strict=True))
    texts = [_argument(*pair) for pair in found]
    texts += [f"*{args.vararg.arg}"] if args.vararg else []
    texts += ["*"] if args.kwonlyargs and not args.vararg else []
    named = zip(args.kwonlyargs, args.kw_defaults, strict=True)
    texts += [_argument(*pair) for pair in named]
    return texts + ([f"**{args.kwarg.arg}"] if args.kwarg else [])


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    text = ast.unparse(arg)
    return text if default is None else f"{text} = {ast.unparse(default)}"


def public(node: ast.AST) -> list[ast.FunctionDef | ast.ClassDef]:
    """The named parts of a module or class that have a docstring."""
    parts = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    return [n for n in parts if n.name[0] != "_" and ast.get_docstring(n)]


def _constructor(node: ast.ClassDef) -> str:
    inits = [n for n in node.body if getattr(n, "name", "") == "__init__"]
    if inits:
        return "class " + signature(inits[0], node.name)
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    names = [f"{f.target.id}: {ast.unparse(f.annotation)}" for f in fields]
    listed = "\n    ".join(names)
    return f"class {node.name}:\n    {listed}" if names else f"class {node.name}"


def headline(node: ast.FunctionDef | ast.ClassDef, prefix: str = "") -> str:
    if isinstance(node, ast.ClassDef):
        return _constructor(node)
    kinds = [d.id for d in node.decorator_list if isinstance(d, ast.Name)]
    name = prefix + node.name
    return name if "property" in kinds else signature(node, name)


def kind(node: ast.AST, inside: bool) -> str:
    """What the Python domain calls it."""
    if isinstance(node, ast.ClassDef):
        return "class"
    kinds = [d.id for d in node.decorator_list if isinstance(d, ast.Name)]
    if "property" in kinds:
        return "property"
    return "method" if inside else "function"


def version_of(root: Path) -> str:
    """The library's version."""
    about = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    return about["project"]["version"]


def revision(root: Path) -> str:
    """The tag of this version, or the main branch while it is not released."""
    version = version_of(root)
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    unreleased = f"## {version} (unreleased)" in changes
    return "main" if unreleased else f"v{version}"


class Api(SphinxDirective):
    """One section for each module that is named."""

    has_content = True

    def run(self):
        return [self._module(line.strip()) for line in self.content if line.strip()]

    def _module(self, name: str) -> nodes.section:
        path = Path("src", *name.split(".")).with_suffix(".py")
        self.env.note_dependency(str(self.env.srcdir / path))
        text = Path(self.env.srcdir, path).read_text(encoding="utf-8")
        tree = ast.parse(text)
        anchor = name.replace(".", "-")
        section = nodes.section(ids=[anchor], names=[name])
        self.env.get_domain("py").note_module(name, anchor, "", "", False)
        # A dotted name may break after a dot, and a copy of it stays one word.
        parts = re.findall(r"[^.]+\.?", name)
        parts = [nodes.inline("", part, classes=["name-part"]) for part in parts]
        section += nodes.title("", "", *parts)
        parse(self, docstring(tree), section)
        for node in public(tree):
            section += self._entry(node, name, path)
        return section

    def _entry(self, node, parent: str, path: Path, prefix="") -> nodes.container:
        name = f"{parent}.{node.name}"
        self._note(name, kind(node, bool(prefix)), name)
        entry = nodes.container(classes=["api-entry"], ids=[name])
        text = headline(node, prefix)
        entry += nodes.literal_block(text, text, language="python")
        entry += self._source(node, path)
        parse(self, docstring(node), entry)
        if isinstance(node, ast.ClassDef):
            inner = [(p, name, path, f"{node.name}.") for p in public(node)]
            entry += [self._entry(*each) for each in inner]
        return entry

    def _note(self, name: str, kind: str, anchor: str) -> None:
        domain = self.env.get_domain("py")
        domain.note_object(name, kind, anchor, location=self.state_machine.node)

    def _source(self, node, path: Path) -> nodes.paragraph:
        site = self.config.html_theme_options["repository_url"]
        at = f"blob/{revision(Path(self.env.srcdir))}/{path.as_posix()}"
        address = f"{site}/{at}#L{node.lineno}-L{node.end_lineno}"
        link = nodes.reference("", f"source of {node.name}", refuri=address)
        return nodes.paragraph("", "", link, classes=["api-source"])


def _name(app, config) -> None:
    """The project and its version, which head the inventory."""
    config.project = config.html_title
    config.version = config.release = version_of(Path(app.srcdir))


def setup(app) -> dict:
    app.add_directive("api", Api)
    app.connect("config-inited", _name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
