"""One Python file made of functions of ours: each definition that they need, word by word.

A copy by hand would drift. Here the modules' own source is read, and what a function names is
followed from module to module: functions, classes and constants of `aha`, and the imports from the
standard library. Nothing is renamed, so two modules may not define one name that both are needed
for; that is refused when the file is made.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "aha"
Place = tuple[str, str]  # a module, and a name that it defines


class OwnModule:
    """The source of a module of ours, by the names at its top level.

    `statements` are those that define or change a name, `ours` what it imports from `aha`,
    `foreign` the line of every other import.
    """

    def __init__(self, name: str):
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None, f"no source of {name}"
        self.name = name
        text = Path(spec.origin).read_text(encoding="utf-8")
        self.lines = text.splitlines()
        self.statements: dict[str, list[ast.stmt]] = {}
        self.ours: dict[str, Place] = {}
        self.foreign: dict[str, str] = {}
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                self.add_import(statement)
            for defined in names_bound(statement):
                self.statements.setdefault(defined, []).append(statement)

    def add_import(self, statement: ast.Import | ast.ImportFrom) -> None:
        for alias in statement.names:
            local = alias.asname or alias.name
            renamed = f" as {alias.asname}" if alias.asname else ""
            if isinstance(statement, ast.Import):
                assert "." not in local, f"{self.name} imports {local} without a name of one word"
                self.foreign[local] = f"import {alias.name}{renamed}"
            elif (statement.module or "").split(".")[0] == PACKAGE:
                assert not renamed, f"{self.name} renames {alias.name}, and a copy would not"
                self.ours[local] = (str(statement.module), alias.name)
            else:
                self.foreign[local] = f"from {statement.module} import {alias.name}{renamed}"

    def text_of(self, statement: ast.stmt) -> str:
        """A statement with its decorators and the comment lines right above it."""
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(node.lineno for node in decorators)]) - 1
        while (
            first and self.lines[first - 1].startswith("#") and "# -- " not in self.lines[first - 1]
        ):
            first -= 1
        return "\n".join(self.lines[first : statement.end_lineno])


def names_bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement defines, or whose value it changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        method = statement.value.func  # such as `table.add(...)`
        targets = [method.value] if isinstance(method, ast.Attribute) else []
    for target in targets:
        yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def names_used(statement: ast.stmt) -> set[str]:
    """Every name in a statement. Local ones are among them: one name too many costs nothing."""
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


@cache
def own_module(name: str) -> OwnModule:
    return OwnModule(name)


def needed(functions: Iterable[Place]) -> tuple[set[Place], set[str]]:
    """(every definition that the functions need, themselves included; the imports of others)."""
    todo, places, imports = list(functions), set[Place](), set[str]()
    while todo:
        place = todo.pop()
        module, name = own_module(place[0]), place[1]
        if name in module.ours:
            todo.append(module.ours[name])
        elif name in module.foreign:
            imports.add(module.foreign[name])
        elif name in module.statements and place not in places:
            places.add(place)
            for statement in module.statements[name]:
                check_imports_within(module.name, statement)
                todo += [(module.name, used) for used in names_used(statement)]
    return places, imports


def check_imports_within(module: str, statement: ast.stmt) -> None:
    """A function that imports from `aha` when it is called would fail where there is no `aha`."""
    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith(PACKAGE), (
                f"{module} imports within a function"
            )


def in_order(modules: set[str]) -> list[str]:
    """The modules, each after those that it imports from."""
    ordered: list[str] = []

    def visit(name: str) -> None:
        for below, _ in own_module(name).ours.values():
            if below in modules and below not in ordered:
                visit(below)
        if name not in ordered:
            ordered.append(name)

    for name in sorted(modules):
        visit(name)
    return ordered


def standing_alone(functions: Iterable[Place]) -> str:
    """The source of the functions with all that they need of ours, as the text of a module.

    Fails where two of the definitions have the same name.
    """
    places, imports = needed(functions)
    homes: dict[str, str] = {}
    for module, name in sorted(places):
        assert homes.setdefault(name, module) == module, f"{name} of {homes[name]} and of {module}"
    parts = ["\n".join(sorted(imports, key=lambda line: (line.startswith("from"), line)))]
    for module in in_order({module for module, _ in places}):
        source = own_module(module)
        chosen = {
            statement.lineno: statement
            for place in places
            if place[0] == module
            for statement in source.statements[place[1]]
        }
        heading = f"# -- {module} ".ljust(95, "-")
        parts.append("\n\n\n".join([heading, *pieces(source, [chosen[n] for n in sorted(chosen)])]))
    return "\n\n\n".join(parts) + "\n"


def pieces(source: OwnModule, statements: list[ast.stmt]) -> Iterator[str]:
    """The texts of the statements; assignments that follow each other stay together."""
    lines: list[str] = []
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            if lines:
                yield "\n".join(lines)
            lines = []
            yield source.text_of(statement)
        else:
            lines.append(source.text_of(statement))
    if lines:
        yield "\n".join(lines)
