"""Definitions of our own modules, and all that they need of ours, as the source of one file that stands alone.

What is exported runs the very text that the platform runs: nothing is written twice, so nothing can drift apart.
"""

import ast
import importlib.util
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

OURS = ("training", "user_embeddings_dagster", "assets", "resources")
PROVIDED = frozenset({"numpy", "safetensors", "torch", "transformers"})
"""What whoever loads an export has: torch and transformers, and what these bring."""
Name = tuple[str, str]
"""Module and name of a definition."""


class NotStandalone(Exception):
    """The source needs something that is not there where an export is loaded, or two definitions share a name."""


def standalone(roots: Collection[Name], title: str, without: Collection[str] = ()) -> str:
    """Python source with the definitions `roots`, their docstrings and all that they need, `title` on top.

    `without`: methods left out, as "Class.method". Raises NotStandalone, naming what is in the way.
    """
    bundle = _Bundle(frozenset(without))
    for root in roots:
        bundle.add(root)
    if unused := bundle.without - bundle.left_out:
        raise NotStandalone(f"no such methods: {sorted(unused)}")
    return bundle.source(title)


@dataclass(frozen=True)
class _Module:
    name: str

    @cached_property
    def path(self) -> Path:
        found = importlib.util.find_spec(self.name)
        if found is None or found.origin is None:
            raise NotStandalone(f"{self.name}: no such module")
        return Path(found.origin)

    @cached_property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """Top-level functions, classes and assigned names."""
        found: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {
                    name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)
                }
        return found

    @cached_property
    def imports(self) -> dict[str, tuple[str, str | None, str]]:
        """By local name: module, what of it (None: the module itself), and the statement."""
        found: dict[str, tuple[str, str | None, str]] = {}
        for node in self.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    part = alias.name + (f" as {alias.asname}" if alias.asname else "")
                    if isinstance(node, ast.Import):
                        found[alias.asname or alias.name.partition(".")[0]] = alias.name, None, f"import {part}"
                    else:
                        module = node.module or ""
                        found[alias.asname or alias.name] = module, alias.name, f"from {module} import {part}"
        return found


@dataclass
class _Bundle:
    without: frozenset[str]
    left_out: set[str] = field(default_factory=set)
    parts: list[tuple[_Module, str]] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    _modules: dict[str, _Module] = field(default_factory=dict)
    _owner: dict[str, str] = field(default_factory=dict)
    _nodes: set[int] = field(default_factory=set)

    def add(self, wanted: Name) -> None:
        """A definition, after all that it needs."""
        module, name = self._modules.setdefault(wanted[0], _Module(wanted[0])), wanted[1]
        node = module.definitions.get(name)
        if node is None:
            if name not in module.imports:
                raise NotStandalone(f"{module.name} defines no {name}")
            self._import(module, name)
            return
        if id(node) in self._nodes:
            return
        self._nodes.add(id(node))
        if self._owner.setdefault(name, module.name) != module.name:
            raise NotStandalone(f"{module.name} and {self._owner[name]} both define {name}")
        dropped = self._dropped(node)
        for used in sorted(_names(node, dropped)):
            if used in module.definitions or used in module.imports:
                self.add((module.name, used))
        skipped = {line for part in dropped for line in range(_first_line(part), (part.end_lineno or 0) + 1)}
        rows = range(_first_line(node), (node.end_lineno or 0) + 1)
        text = "\n".join(module.lines[row - 1] for row in rows if row not in skipped)
        self.parts.append((module, text.rstrip()))

    def _import(self, module: _Module, name: str) -> None:
        source, part, statement = module.imports[name]
        top = source.partition(".")[0]
        if top not in OURS:
            if not _is_standard(top) and top not in PROVIDED:
                raise NotStandalone(f"{module.name} needs {top}")
            self.imports.add(statement)
        elif part is None or name != part:
            raise NotStandalone(f"{module.name}: import names from {source}, under their own names")
        else:
            self.add((source, part))

    def _dropped(self, node: ast.stmt) -> list[ast.stmt]:
        if not isinstance(node, ast.ClassDef):
            return []
        methods = {f"{node.name}.{part.name}": part for part in node.body if isinstance(part, ast.FunctionDef)}
        self.left_out |= methods.keys() & self.without
        return [part for name, part in methods.items() if name in self.without]

    def source(self, title: str) -> str:
        """The file."""
        text = [f'"""{title}"""', "\n".join(sorted(self.imports, key=lambda line: (line.startswith("from"), line)))]
        told: set[str] = set()
        for module, part in self.parts:
            if module.name not in told:
                told.add(module.name)
                said = ast.get_docstring(module.tree) or ""
                lines = [f"From {module.name}", "", *said.splitlines()]
                text.append("\n".join(f"# {line}".rstrip() for line in lines))
            text.append(part)
        whole = "\n\n\n".join(text) + "\n"
        compile(whole, title, "exec")  # raises SyntaxError; never run here
        return whole


def _names(node: ast.AST, dropped: Collection[ast.stmt]) -> Iterator[str]:
    """Names that a definition reads; raises NotStandalone where it imports modules of ours by itself."""
    if node in dropped:
        return
    if isinstance(node, ast.Name):
        yield node.id
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for module in modules:
            top = module.partition(".")[0]
            if top in OURS or not (_is_standard(top) or top in PROVIDED):
                raise NotStandalone(f"a function imports {module}")
    for child in ast.iter_child_nodes(node):
        yield from _names(child, dropped)


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _is_standard(module: str) -> bool:
    return module in sys.stdlib_module_names
