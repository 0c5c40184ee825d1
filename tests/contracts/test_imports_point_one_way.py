"""The import rule of ARCHITECTURE.md, read from the syntax tree.

switchyard <- {feature_repo, assets, bentos} <- orchestration; assets and bentos never import each other;
learning and serving know no fraud; no orchestrator, feature-store SDK, tracker or server in switchyard.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "switchyard": {"orchestration", "assets", "bentos", "feature_repo", "benchmarks", "dagster",
                   "dagster_mlflow", "feast", "mlflow", "bentoml"},
    "switchyard/learning": {"switchyard.fraud", "switchyard.serving"},
    "switchyard/serving": {"switchyard.fraud"},
    "assets": {"orchestration", "bentos", "feature_repo", "benchmarks"},
    "bentos": {"orchestration", "assets", "feature_repo", "benchmarks"},
    "feature_repo": {"orchestration", "assets", "bentos", "benchmarks"},
}  # fmt: skip


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("folder", sorted(FORBIDDEN))
def test_a_folder_imports_only_inwards(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))

    offences = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in sorted(imported_modules(path))
        for banned in FORBIDDEN[folder]
        if module == banned or module.startswith(f"{banned}.")
    ]

    assert files
    assert offences == []
