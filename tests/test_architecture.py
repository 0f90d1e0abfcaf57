"""The rules of the house: imports point one way, shared helpers stand once, files are short."""

import ast
import collections
import graphlib
import re
from pathlib import Path

import pytest

from zfcuda.cli import COMMANDS

ROOT = Path(__file__).parent.parent

# What each part of the package stands on, besides the foundation: the modules at its top that are not named here. The
# root, which brings them all together, is for users.
STANDS_ON = {
    "ops": set(),
    "data": {"ops"},
    "nn": {"ops", "data"},
    "models": {"nn"},
    "tuning": {"ops", "nn"},
    "interop": {"ops", "data", "nn"},
    "training": {"ops", "data", "nn"},
    "analysis": {"ops", "data", "nn", "training"},
    "report": {"data", "nn", "training", "analysis"},
    "commands": {"data", "nn", "tuning", "interop", "training", "analysis", "report"},
    "cli": {"commands"},
    "__main__": {"cli"},
}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / "zfcuda").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def imports_of(name):
    """The modules of the package that a module imports, wherever in it and whatever for: (module, line)."""
    package = name.split(".") if MODULES[name].name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found = [one for one in (f"{base}.{alias.name}", base) if one in MODULES]
                yield from ((one, node.lineno) for one in found[:1])


IMPORTS = {name: dict(imports_of(name)) for name in MODULES}


def part(name):
    """Of a module's name: the part of the package that it belongs to, "" for the root."""
    return ".".join(name.split(".")[1:2])


def where(name, imported):
    return f"{MODULES[name].relative_to(ROOT)}:{IMPORTS[name][imported]} imports {imported}"


def test_the_imports_are_found():
    assert {"zfcuda.backends", "zfcuda.errors", "zfcuda.nn"} <= IMPORTS["zfcuda"].keys()
    assert {"zfcuda._devices", "zfcuda._cpu", "zfcuda.plans"} <= IMPORTS["zfcuda.backends"].keys()
    assert {"zfcuda.analysis", "zfcuda.report"} <= IMPORTS["zfcuda.report.sections.occlusion"].keys()


def test_imports_point_one_way():
    wrong = [
        where(name, imported)
        for name in MODULES
        for imported in IMPORTS[name]
        if part(name) and part(imported) != part(name)
        if part(imported) == "" or (part(imported) in STANDS_ON and part(imported) not in STANDS_ON.get(part(name), ()))
    ]
    assert wrong == []


def test_there_is_no_circle_of_imports():
    try:
        graphlib.TopologicalSorter(IMPORTS).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_private_modules_stay_in_their_package():
    wrong = [
        where(name, imported)
        for name in MODULES
        for imported in IMPORTS[name]
        for package, _, module in [imported.rpartition(".")]
        if module.startswith("_") and not f"{name}.".startswith(f"{package}.")
    ]
    assert wrong == []


def test_no_command_imports_another():
    commands = {f"zfcuda.commands.{command}" for command in COMMANDS}
    assert commands <= MODULES.keys()
    users = [name for name in MODULES if part(name) == "commands"]
    assert [where(name, one) for name in users for one in commands & IMPORTS[name].keys()] == []


def test_no_function_stands_twice():
    """Whatever it is called. One expression is no function to share."""
    places = collections.defaultdict(list)
    for name, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if len(list(ast.walk(ast.Module(body, [])))) > 15:
                    places["".join(map(ast.dump, [node.args, *body]))].append(f"{name}.{node.name}")
    assert [names for names in places.values() if len(names) > 1] == []


@pytest.mark.parametrize("folder", ["csrc", "zfcuda", "benchmarks", "tests"])
def test_files_are_short(folder):
    paths = [path for path in (ROOT / folder).rglob("*") if path.suffix in {".h", ".cuh", ".cpp", ".cu", ".py"}]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert [f"{path.relative_to(ROOT)}: {count} lines" for path, count in lines.items() if count > 450] == []


def test_extras_are_installed_in_one_way():
    """What errors say is what README says: `pip install 'zfcuda[onnx]'`, of an extra that there is."""
    hint = re.compile(r"""['"](?:zfcuda|\.)\[[a-z0-9,]+\]['"]""")
    readme = set(hint.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    hints = {one for path in MODULES.values() for one in hint.findall(path.read_text(encoding="utf-8"))}
    assert "'zfcuda[sklearn]'" in hints
    assert hints - readme == set()
