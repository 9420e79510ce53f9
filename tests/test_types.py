"""Every public function in every room says the types that it takes and returns."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

AHA = Path(__file__).resolve().parent.parent / "src" / "aha"
ROOMS = sorted(path.parent.name for path in AHA.glob("*/__init__.py"))
NAKED = {"dict", "list", "tuple", "set", "frozenset", "Callable", "Mapping", "Sequence", "Iterator"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """The functions of a module and the methods of its classes whose names have no underscore in
    front, and the `__init__` of public classes."""
    todo: list[tuple[str, ast.stmt]] = [("", node) for node in tree.body]
    while todo:
        prefix, node = todo.pop()
        if not isinstance(node, Function | ast.ClassDef):
            continue
        if node.name.startswith("_") and node.name not in ("__init__", "__call__"):
            continue
        if isinstance(node, ast.ClassDef):
            todo += [(f"{prefix}{node.name}.", inner) for inner in node.body]
        else:
            yield prefix + node.name, node


def naked_types(annotation: ast.expr) -> Iterator[str]:
    """The containers in an annotation that do not say what they hold."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    held = {id(node.value) for node in ast.walk(annotation) if isinstance(node, ast.Subscript)}
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name) and node.id in NAKED and id(node) not in held:
            yield node.id


def faults_of(name: str, function: Function) -> Iterator[str]:
    """What the signature of a function lacks."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args]
    static = any(
        isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list
    )
    if "." in name and not static:
        named = named[1:]  # self or cls
    named += [*arguments.kwonlyargs, *filter(None, (arguments.vararg, arguments.kwarg))]
    for argument in named:
        if argument.annotation is None:
            yield f"{name}: no type for {argument.arg}"
        else:
            yield from (f"{name}: naked {t}" for t in naked_types(argument.annotation))
    if function.returns is not None:
        yield from (f"{name}: returns a naked {t}" for t in naked_types(function.returns))
    elif not name.endswith("__init__"):
        yield f"{name}: no type of the result"


@pytest.mark.parametrize("room", ROOMS)
def test_public_signatures_have_whole_types(room):
    faults = [
        f"src/aha/{path.relative_to(AHA).as_posix()}:{function.lineno} {fault}"
        for path in sorted((AHA / room).rglob("*.py"))
        for name, function in public_functions(ast.parse(path.read_text(encoding="utf-8")))
        for fault in faults_of(name, function)
    ]
    if faults:
        rule = "A public signature says what it takes, holds and returns:"
        pytest.fail("\n  ".join([rule, *faults]), pytrace=False)


def test_what_a_signature_lacks_is_seen():
    code = """
class Box:
    def __init__(self, size: int): ...
    def open(self, key, *more: dict) -> "dict[str, list]": ...
    @staticmethod
    def make(shape: tuple[int, ...]): ...
    def _own(self, x): ...
def fill(box: Box | None = None, **options: Callable[[int], dict]) -> list[int]:
    def inner(x): ...
"""
    faults = [
        fault
        for name, function in public_functions(ast.parse(code))
        for fault in faults_of(name, function)
    ]
    assert sorted(faults) == [
        "Box.make: no type of the result",
        "Box.open: naked dict",
        "Box.open: no type for key",
        "Box.open: returns a naked list",
        "fill: naked dict",
    ]
