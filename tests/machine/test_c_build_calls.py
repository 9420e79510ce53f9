"""C is called by keyword, and what Python believes of the C sources is what they say."""

import ctypes
import re
import subprocess
from pathlib import Path

import pytest
import torch

from aha.machine.c_build import HEADERS, CFunction, CStruct, find_compiler, load_code
from aha.model import fused
from aha.rollout import c_loop

from ..tiny import needs_compiler

STRUCTS = {
    "Model": c_loop.ModelStruct,
    "Job": c_loop.JobStruct,
    "Budget": c_loop.BudgetStruct,
}
HEADERS_OF_JOB = "".join(
    (c_loop.SOURCE.parent / f"{name}.h").read_text() for name in ("job", "forcing")
)
# ctypes has one class for int32_t and int.
C_TYPES = {
    ctypes.c_void_p: "pointer",
    ctypes.c_int64: "int64_t",
    ctypes.c_int32: "int32_t",
    ctypes.c_float: "float",
}


class Pair(CStruct):
    _fields_ = [("rows", ctypes.c_int32), ("eps", ctypes.c_float)]


def declared(text: str) -> list[tuple[str, str]]:
    """(name, type) of each field or parameter: `const num *x, *y;` are two pointers."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    names = []
    for declaration in filter(None, map(str.strip, text.split(";"))):
        first, *others = declaration.split(",")
        kind, name = re.fullmatch(r"((?:const )?\w+\s)(.*)", first.strip(), re.DOTALL).groups()
        for one in (name, *others):
            one = one.strip()
            pointer = "*" in one
            kind = {"int": "int32_t"}.get(kind.strip(), kind.strip())
            names.append((re.sub(r".*[\s*]", "", one), "pointer" if pointer else kind))
    return names


def body_of(struct: str) -> str:
    """The fields of the structure that a typedef gives this name."""
    return re.search(r"typedef struct \{([^{}]*)\} " + struct + ";", HEADERS_OF_JOB)[1]


def parameters_of(function: str) -> list[tuple[str, str]]:
    sources = "".join(path.read_text() for path in fused.SOURCES)
    found = re.search(rf"^void aha_{function}\(([^)]*)\)", sources, re.MULTILINE)[1]
    return [pair for one in found.split(",") for pair in declared(one)]


# -- by keyword ----------------------------------------------------------------------------------


def test_a_structure_is_filled_by_name_in_any_order():
    pair = Pair(eps=0.5, rows=3)
    assert (pair.rows, pair.eps) == (3, 0.5)
    assert bytes(pair) == bytes(Pair(rows=3, eps=0.5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": 3}, "missing eps, unknown nothing"),
        ({"rows": 3, "eps": 0.5, "width": 4}, "missing nothing, unknown width"),
        ({"rows": 3, "epsilon": 0.5}, "missing eps, unknown epsilon"),
        ({}, "missing eps, rows"),
    ],
)
def test_a_missing_or_wrong_name_is_an_error(values, message):
    with pytest.raises(TypeError, match=f"Pair: {message}"):
        Pair(**values)
    never = CFunction("aha_f", lambda *unused: pytest.fail("called"), {"rows": ctypes.c_int64})
    never.parameters = dict(Pair._fields_)
    with pytest.raises(TypeError, match=f"aha_f: {message}"):
        never(**values)


def test_a_structure_takes_nothing_by_position():
    with pytest.raises(TypeError):
        Pair(3, 0.5)


def test_a_value_of_another_type_is_an_error():
    with pytest.raises(TypeError):
        Pair(rows=3.5, eps=0.5)


@needs_compiler
def test_a_compiled_function_wants_all_its_names():
    x = torch.ones(1, 16)
    with pytest.raises(TypeError, match="aha_normalise: missing eps, scale, unknown epsilon"):
        fused.call("normalise", x, x=x, y=x, rows=1, width=16, epsilon=1e-6)


# -- the sources ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRUCTS)
def test_a_structure_has_the_fields_of_its_c_source_in_their_order(name):
    fields = [(field, C_TYPES[kind]) for field, kind in STRUCTS[name]._fields_]
    assert fields == declared(body_of(name))


def test_the_reader_of_declarations_sees_a_difference():
    text = "int32_t rows, width; float eps; /* small; */ const num *const *matrices, *x;"
    assert declared(text) == [
        ("rows", "int32_t"),
        ("width", "int32_t"),
        ("eps", "float"),
        ("matrices", "pointer"),
        ("x", "pointer"),
    ]


@pytest.mark.parametrize("name", fused.PARAMETERS)
def test_a_function_has_the_parameters_of_its_c_source_in_their_order(name):
    parameters = [(key, C_TYPES[kind]) for key, kind in fused.PARAMETERS[name].items()]
    assert parameters == parameters_of(name)


def test_every_function_of_the_sources_is_known():
    sources = "".join(path.read_text() for path in fused.SOURCES)
    assert {*re.findall(r"^void aha_(\w+)\(", sources, re.MULTILINE)} == {*fused.PARAMETERS}


@needs_compiler
@pytest.mark.parametrize("name", STRUCTS)
def test_sizes_and_offsets_are_those_of_the_compiler(name, tmp_path: Path):
    """The compiler itself is asked, as only it knows where it leaves gaps."""
    struct = STRUCTS[name]
    lines = [f'printf("%zu\\n", offsetof({name}, {field}));' for field, _ in struct._fields_]
    (tmp_path / "offsets.c").write_text(
        "#include <math.h>\n#include <pthread.h>\n#include <stddef.h>\n#include <stdio.h>\n"
        f'#include "job.h"\nint main(void) {{ printf("%zu\\n", sizeof({name}));\n'
        + "\n".join(lines)
        + "\nreturn 0; }\n"
    )
    folders = [f"-I{folder}" for folder in (HEADERS, c_loop.SOURCE.parent)]
    program = tmp_path / "offsets"
    source = str(tmp_path / "offsets.c")
    command = [find_compiler(), "-w", "-DBF16=0", *folders, source, "-o", str(program), "-lm"]
    subprocess.run(command, check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    offsets = [getattr(struct, field).offset for field, _ in struct._fields_]
    assert [*map(int, printed.split())] == [ctypes.sizeof(struct), *offsets]


@needs_compiler
def test_the_loop_in_c_is_there():
    assert load_code(c_loop.SOURCE, False).aha_tile() > 0
