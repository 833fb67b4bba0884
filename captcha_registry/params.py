"""Strict loader of params.yaml: a section becomes a frozen, validated object, or an error that names key and remedy.

The file is read as YAML 1.2, as DVC reads it, so that both see the same value in `1e-3`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from captcha_registry.errors import UserError, require_regular
from captcha_registry.nearest import suggest

PARAMS_PATH = Path("params.yaml")
YAML_SET = "tag:yaml.org,2002:set"

# No more than GTO, which reads the tags of versions, takes for a name.
NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?")
RESERVED_NAMES = {"generated", "tools"}
# What no file or folder can be called on Windows.
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}

# What pydantic's words for a wrong type mean to someone who writes YAML.
EXPECTED_TYPES = {
    "bool_type": "true or false",
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "text: put it in quotes",
    "tuple_type": "a list in brackets",
}


class Section(BaseModel):
    """Base of every params model: immutable, no silent conversion, no unknown key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


AnySection = TypeVar("AnySection", bound=Section)


def text_like(pattern: str, words: str) -> AfterValidator:
    """Expect a text that matches a pattern from its beginning to its end, which errors tell in words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError("text_like", "{words}", {"words": words})
        return text

    return AfterValidator(check)


class ParamsError(UserError):
    """A params file that cannot be read, or a value in it that is not allowed."""


def read_params(path: Path = PARAMS_PATH) -> dict[str, Any]:
    """Read a params file without checking it."""
    yaml = YAML(typ="safe")
    # The order of a set differs from process to process.
    yaml.constructor.yaml_constructors = {tag: of for tag, of in yaml.constructor.yaml_constructors.items() if tag != YAML_SET}
    require_regular(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        where = "is a symbolic link that leads nowhere" if path.is_symlink() else "is missing"
        raise ParamsError(f"{path} {where}: run from the project's top folder") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path} is not text in UTF-8: save it as UTF-8 ({error})") from None
    except MarkedYAMLError as error:
        # Of a key that is there twice it shows the values, too, which it has not read yet.
        problem = re.sub(" with value .*", "", str(error.problem))
        raise ParamsError(f"{path} is not valid YAML: line {error.problem_mark.line + 1}: {problem}") from error
    # Not only YAML's own errors: others tell of numbers with thousands of digits, of a 13th month, and of endless brackets.
    except (YAMLError, ValueError, RecursionError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ParamsError(f"{path} holds {found}; expected sections such as `datasets:`")
    return content


def check_names(names: Iterable[object]) -> None:
    """Refuse names of datasets and models that would not do for their folders and metrics files, or for tags of versions.

    Raises:
        ParamsError: says which, and what is allowed.
    """
    for name, times in Counter(names).items():
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            raise ParamsError(
                f"{PARAMS_PATH}: the name {name!r} is not allowed; expected text of a-z, 0-9, - and _, with a letter or digit at "
                "both ends, of at most 64 characters"
            )
        if name in RESERVED_NAMES:
            raise ParamsError(f"{PARAMS_PATH}: the name {name!r} is taken by data/{name}: choose another")
        if name in DEVICES:
            raise ParamsError(
                f"{PARAMS_PATH}: the name {name!r} is that of a device on Windows, where nobody could fetch it: choose another"
            )
        if times > 1:
            raise ParamsError(f"{PARAMS_PATH}: a dataset and a model are both called {name!r}: rename one, they share metrics/")


def load_section(model: type[AnySection], key: str, path: Path = PARAMS_PATH) -> AnySection:
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
            known = ", ".join(map(str, section)) if isinstance(section, dict) else show_value(section)
            raise ParamsError(f"{path}: {'.'.join(parts[: depth + 1])} is missing; found: {known}")
        section = section[name]
    return parse_section(model, section, f"{path}: {key}")


def parse_section(model: type[AnySection], section: Any, where: str) -> AnySection:
    """Validate a section that is already read; `where` opens each line of the error."""
    try:
        return model.model_validate(section)
    except ValidationError as error:
        raise ParamsError("\n       ".join(explain_errors(error, model, where))) from None


@contextmanager
def name_section(key: str) -> Iterator[None]:
    """Say in an error which section of the params file it comes from."""
    try:
        yield
    except UserError as error:
        raise ParamsError(f"{PARAMS_PATH}: {key}: {error}") from None


def explain_errors(error: ValidationError, model: type[Section], where: str = "") -> list[str]:
    """Say in one line each which key is wrong, what it holds, and what is allowed; `where` opens each line."""
    # A list without one good item is also called too short.
    on_the_way = {_find_place(detail)[:depth] for detail in error.errors() for depth in range(len(_find_place(detail)))}
    details = [detail for detail in error.errors() if _find_place(detail) not in on_the_way]
    missing: dict[tuple[int | str, ...], list[str]] = {}
    for place in [_find_place(detail) for detail in details if detail["type"] == "missing"]:
        missing.setdefault(place[:-1], []).append(str(place[-1]))
    return [
        *(_explain_missing(place, names, model, where) for place, names in missing.items()),
        *(_explain(detail, model, where) for detail in details if detail["type"] != "missing"),
    ]


def _find_place(detail: ErrorDetails) -> tuple[int | str, ...]:
    """Return the keys on the way to what is wrong; a choice between models has a tag such as `<range>` there, which is no key."""
    return tuple(name for name in detail["loc"] if not str(name).startswith("<"))


def _explain_missing(place: tuple[int | str, ...], names: list[str], model: type[Section], where: str) -> str:
    """Say which keys are missing at one place."""
    prefix = ".".join(filter(None, [where, *map(str, place)]))
    known = ", ".join(_find_model(model, (*place, names[0])).model_fields)
    verb = "is" if len(names) == 1 else "are"
    return f"{prefix}{'.' if prefix else ''}{', '.join(names)} {verb} missing; expected keys: {known}"


def _explain(detail: ErrorDetails, model: type[Section], where: str) -> str:
    if detail["type"] == "json_invalid":
        return detail["msg"]
    place = _find_place(detail)
    key = ".".join(filter(None, [where, *map(str, place)])) or "it"
    known = list(_find_model(model, place).model_fields)
    if detail["type"] == "extra_forbidden":
        hint = suggest(str(place[-1]), known) or f"known keys: {', '.join(known)}"
        return f"{key} is not a known key; {hint}"
    if detail["type"] == "value_error":
        return f"{key}: {detail['ctx']['error']}"
    if detail["type"] == "model_type":
        inner = _find_model(model, (*place, "")).model_fields
        needed = [name for name, field in inner.items() if field.is_required()] or list(inner)
        keys = f"the keys {', '.join(needed)}, each with a value" if needed[1:] else f"the key {needed[0]} with a value"
        least = "" if len(needed) == len(inner) else "at least "
        return f"{key} is {show_value(detail['input'])}; expected {least}{keys}"
    expected = EXPECTED_TYPES.get(detail["type"]) or re.sub(r"^\w+ should (be|have) | after validation.*", "", detail["msg"])
    if detail["type"] == "int_type" and "<int>" in detail["loc"]:
        # A range may stand here, too, which others write as 4-6 or [4, 6].
        numbers = re.findall(r"\d+", str(detail["input"])) if isinstance(detail["input"], str | list) else []
        low, high = numbers if len(numbers) == 2 else (3, 6)  # noqa: PLR2004 - both ends
        expected += f", or a range such as {{min: {low}, max: {high}}}"
    return f"{key} is {show_value(detail['input'])}; expected {expected}"


def show_value(value: object) -> str:
    """Show a value of a file; one that was left out, which Python calls None, is `empty`."""
    return "empty" if value is None else repr(value)


def _find_model(model: type[Section], place: tuple[int | str, ...]) -> type[Section]:
    """Find the innermost model on the way to a key."""
    for name in place[:-1]:
        if field := model.model_fields.get(str(name)):
            # `Recipe`, or inside `tuple[FileEntry, ...]`, `SplitRule | None` and `Annotated[LengthRange, ...]`.
            arguments = get_args(field.annotation)
            kinds = (field.annotation, *arguments, *(inner for argument in arguments for inner in get_args(argument)))
            model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), model)
    return model
