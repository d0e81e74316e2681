"""A search for a name finds one thing: no two modules define the same public name."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
APPS = ("arena", "generation", "ratings")
# The same meaning in each module: Django's and Python's own, and the interface of backends.
SHARED = {
    "Command", "urlpatterns", "log", "main",
    "GPU", "SETTINGS", "OPTIONAL", "check", "render", "make_clip", "SERVICE",
    "RATE", "train",  # of Colt's training commands
    "SITE_ROLE",  # the role's name on this machine, and where settings read it
}  # fmt: skip


def _public_names(module: Path) -> set[str]:
    names = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")} - SHARED


def test_a_public_name_is_defined_once() -> None:
    where = defaultdict(list)
    for app in APPS:
        for module in sorted((ROOT / app).rglob("*.py")):
            if "migrations" not in module.parts:
                for name in _public_names(module):
                    where[name].append(str(module.relative_to(ROOT)))
    assert len(where) > 1000  # it has looked
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}
