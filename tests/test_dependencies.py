"""Every dependency says in a line what it is for, and the lock pins it to what was tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
PINNED = dict(
    re.findall(r"^([\w.\-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
)
VERSIONS = {canonicalize_name(name): version for name, version in PINNED.items()}


@pytest.mark.parametrize("declared", DECLARED)
def test_a_dependency_says_what_it_is_for(declared: str) -> None:
    said = re.search(rf'"{re.escape(declared)}"[],]*\s*#(.*)$', TEXT, re.MULTILINE)

    assert said, (
        f"pyproject.toml: '{declared}' needs a comment on its line that says what it is for"
    )
    assert len(said.group(1).split()) >= 2, said.group(1)


@pytest.mark.parametrize("declared", DECLARED)
def test_the_lock_pins_a_dependency_to_a_version_that_it_allows(declared: str) -> None:
    wanted = Requirement(declared)

    version = VERSIONS.get(canonicalize_name(wanted.name))

    assert version, f"requirements.lock does not pin '{wanted.name}'"
    assert version in wanted.specifier
