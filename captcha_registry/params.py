"""Strict loader of params.yaml: a section becomes a frozen, validated object, or an error that names key and remedy.

The file is read as YAML 1.2, as DVC reads it, so that both see the same value in `1e-3`.
"""

import difflib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from captcha_registry.errors import UserError

PARAMS_PATH = Path("params.yaml")


class Section(BaseModel):
    """Base of every params model: immutable, no silent conversion, no unknown key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


SectionT = TypeVar("SectionT", bound=Section)


class ParamsError(UserError):
    """A params file that cannot be read, or a value in it that is not allowed."""


def read_params(path: Path = PARAMS_PATH) -> dict[str, Any]:
    """Read a whole params file without checking it."""
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run from the project's top folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ParamsError(f"{path} holds {type(content).__name__}; expected sections such as `datasets:`")
    return content


def load_section(model: type[SectionT], key: str, path: Path = PARAMS_PATH) -> SectionT:
    """Read and validate one section.

    Args:
        model: what the section must look like.
        key: dotted place of the section, such as `datasets.digits`.
        path: the params file.

    Raises:
        ParamsError: names the file, every wrong key, its value and what is allowed.
    """
    section: Any = read_params(path)
    for depth, name in enumerate(parts := key.split(".")):
        if not isinstance(section, dict) or name not in section:
            known = ", ".join(map(str, section)) if isinstance(section, dict) else repr(section)
            raise ParamsError(f"{path}: {'.'.join(parts[: depth + 1])} is missing; found: {known}")
        section = section[name]
    return parse_section(model, section, f"{path}: {key}")


def parse_section(model: type[SectionT], section: Any, where: str) -> SectionT:
    """Validate a section that is already read; `where` opens each line of the error."""
    try:
        # Lists of YAML stand for tuples, which strict mode takes from JSON-like input only.
        return model.model_validate(section)
    except ValidationError as error:
        raise ParamsError("\n       ".join(_explain(detail, model, where) for detail in error.errors())) from None


def _explain(detail: ErrorDetails, model: type[Section], where: str) -> str:
    """Say in one line which key is wrong, what it holds, and what is allowed."""
    key = ".".join([where, *map(str, detail["loc"])])
    if detail["type"] == "extra_forbidden":
        name = str(detail["loc"][-1])
        near = difflib.get_close_matches(name, model.model_fields, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(model.model_fields)}"
        return f"{key} is not a known key; {hint}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "value_error":
        return f"{key}: {detail['ctx']['error']}"
    return f"{key} is {detail['input']!r}; {detail['msg'].replace('Input should be', 'expected')}"
