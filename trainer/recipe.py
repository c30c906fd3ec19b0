"""Recipes: everything that decides a training run, in one checked YAML file that is saved with its result.

A key that does not exist, or a value of the wrong type or range, is an error that names it.
`python -m trainer.recipe` lists all keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from pipeline.errors import UserError, did_you_mean, explain
from pipeline.values import Loader

SHIPPED = Path(__file__).resolve().parents[1] / "configs/training"
"""Where the recipes of a checkout lie."""

MAX_CHARACTERS = 1_000_000
"""In a recipe."""

Share = Annotated[float, Field(ge=0, le=1)]

_NO_YAML = (yaml.YAMLError, ValueError, OverflowError, LookupError, AttributeError, RecursionError)
"""What reading YAML ends with: most of them for what is no value, as `2024-13-45`, `!!int ""`, `"\\UFFFFFFFF"`."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _no_number_from_yes(cls, given: Any, check: ValidatorFunctionWrapHandler) -> Any:
        """In YAML `yes` is true, which would do as 1."""
        value = check(given)
        if any(type(was) is bool and type(now) in (int, float) for was, now in _pairs(given, value)):
            raise ValueError("true and false are no numbers")
        return value


def _pairs(given: Any, value: Any) -> Iterator[tuple[Any, Any]]:
    """What was given and what it was read as; of lists each part, however deep."""
    if isinstance(given, list) and isinstance(value, list | tuple):
        for part, read in zip(given, value, strict=True):
            yield from _pairs(part, read)
    else:
        yield given, value


class Augment(_Strict):
    """What happens to each training picture; zeros switch a part off."""

    flip: Annotated[Share, Field(description="probability of the mirror image")] = 0.5
    crop_padding: Annotated[int, Field(ge=0, le=16, description="shift by up to so many whole pixels")] = 0
    rotate: Annotated[float, Field(ge=0, le=90, description="degrees, to either side")] = 0
    scale: Annotated[
        tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]],
        Field(description="smallest, largest factor"),
    ] = (1, 1)
    translate: Annotated[Share, Field(description="of the side, in every direction")] = 0
    fill: Annotated[Literal["zeros", "border", "reflection"], Field(description="what stands outside the picture")] = (
        "border"
    )
    contrast: Annotated[Share, Field(description="factor 1 - c .. 1 + c around the mean")] = 0
    brightness: Annotated[Share, Field(description="added, as a share of 255")] = 0
    erase: Annotated[Share, Field(description="probability of one erased rectangle")] = 0
    erase_area: Annotated[tuple[Share, Share], Field(description="smallest, largest share of the picture")] = (
        0.02,
        0.2,
    )


class Distill(_Strict):
    """Learning from teachers that see the same augmented view (Hinton et al. 2015; Beyer et al. 2022)."""

    teachers: Annotated[list[str], Field(min_length=1, description="weight files")]
    share: Annotated[Share, Field(description="of the loss; the rest is cross entropy with labels")] = 0.9
    temperature: Annotated[float, Field(gt=0, description="softens teachers and student alike")] = 2.0


class Recipe(_Strict):
    """One training run."""

    description: Annotated[str, Field(description="one line, for the model card")] = ""
    width: Annotated[int, Field(ge=4, le=256, description="channels of the first convolution")] = 64
    epochs: Annotated[int, Field(ge=1, description="times that every picture is seen")]
    batch: Annotated[int, Field(ge=2, description="pictures in a step")] = 128
    optimizer: Annotated[Literal["adam", "adamw", "sgd"], Field(description="adam, adamw or sgd")] = "adamw"
    lr: Annotated[float, Field(gt=0, description="the peak of the one-cycle schedule")]
    warmup: Annotated[Share, Field(description="share of the steps until the peak")] = 0.3
    weight_decay: Annotated[float, Field(ge=0, description="as the optimizer understands it")] = 0.0
    clip_value: Annotated[float, Field(ge=0, description="clip each gradient element; 0: off")] = 0.0
    label_smoothing: Annotated[Share, Field(description="share of the target given to all classes alike")] = 0.0
    mixup: Annotated[float, Field(ge=0, description="alpha of the Beta distribution; 0: off")] = 0.0
    ema: Annotated[float, Field(ge=0, lt=1, description="decay per step; 0: off, weights as they end")] = 0.0
    ferplus: Annotated[float, Field(ge=0, description="weight of the auxiliary loss on FER+ votes")] = 0.0
    sizes: Annotated[
        list[tuple[Share, Annotated[int, Field(ge=16, multiple_of=8)]]],
        Field(min_length=1, description="[until this share of the epochs, picture size], in order"),
    ] = [(1.0, 48)]
    leave_out: Annotated[
        list[Literal["blank", "leaked", "copies"]],
        Field(description="Training rows: constant; also in another split; repeated"),
    ] = ["blank", "leaked"]
    augment: Annotated[Augment, Field(description="what happens to each picture")] = Augment()
    init: Annotated[str | None, Field(description="weights to begin with, of the same width; none: random ones")] = None
    distill: Annotated[Distill | None, Field(description="teachers, where there are any")] = None
    precision: Annotated[
        Literal["auto", "bf16", "fp32"], Field(description="auto: bf16 where the device computes in it")
    ] = "auto"
    compile: Annotated[bool, Field(description="torch.compile; CUDA only, and where a C compiler is")] = True
    seed: Annotated[int, Field(ge=0, lt=2**32, description="of weights, order and augmentation")] = 0

    @model_validator(mode="after")
    def _sizes_reach_the_end(self) -> Recipe:
        ends = [end for end, _ in self.sizes]
        if ends != sorted(ends) or ends[-1] != 1:
            raise ValueError("sizes must be in order and end with share 1.0")
        return self

    def essence(self) -> dict[str, Any]:
        """All that decides a run's result, as JSON: not its description, nor where its parents' files lie, nor whether
        its code is compiled, which may change from one start to the next.

        What is in those files decides; see `run_inputs` of prepare.py.
        """
        aside = {"description": True, "compile": True, "init": True, "distill": {"teachers"}}
        return self.model_dump(mode="json", exclude=aside)

    def size_at(self, epoch: int) -> int:
        """Side of the training pictures in an epoch counted from 0."""
        return next(size for end, size in self.sizes if epoch < end * self.epochs or end == 1)


def keys(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, default, what it does) of everything that a recipe may say, the parts of a part after it."""
    for name, field in model.model_fields.items():
        part = {"augment": Augment, "distill": Distill}.get(name)
        if part is not None:
            yield from keys(part, f"{name}.")
        else:
            default = "required" if field.is_required() else repr(field.get_default())
            yield prefix + name, default, field.description or ""


class _Loader(Loader):
    """A key that stands twice is an error, where YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # what is to be said of it is said below
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"'{key.value}' stands there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply `key=value` overrides (`augment.rotate=10`; values are YAML).

    Raises UserError, naming file and key.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:  # not all at once: it may be a film, or /dev/zero
            text = file.read(MAX_CHARACTERS + 1)
        if len(text) > MAX_CHARACTERS:
            raise UserError(f"{path} is not a recipe: it has more than {MAX_CHARACTERS:,} characters")
        content = yaml.load(text, _Loader)
    except FileNotFoundError:
        shipped = {recipe.stem: _from_here(recipe) for recipe in sorted(SHIPPED.glob("*.yaml"))}
        near = shipped.get(path.stem)
        hint = f"; did you mean '{near}'?" if near else ""
        raise UserError(
            f"no such recipe: {path}{hint or did_you_mean(str(path), map(str, shipped.values()))}"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except _NO_YAML as error:
        reason = error if isinstance(error, yaml.YAMLError | ValueError) else "it has a value that cannot be read"
        raise UserError(f"{path} is not a YAML recipe: {reason}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a recipe: it must be a mapping of keys to values")
    for override in overrides:
        _apply(content, override)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from error


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"'{override}' is not an override: write key=value, as in epochs=5")
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise UserError(f"'{override}': {parent} has no parts")
    try:
        place[last] = yaml.load(value, _Loader)
    except _NO_YAML as error:
        raise UserError(f"'{override}': the value is not YAML") from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"]]
    name = ".".join(where) or "the recipe"
    if problem["type"] == "extra_forbidden":
        model = {"augment": Augment, "distill": Distill}.get(where[0], Recipe) if len(where) > 1 else Recipe
        return f"unknown key '{name}'{did_you_mean(where[-1], model.model_fields)}"
    if problem["type"] == "missing":
        return f"the key '{name}' is missing"
    return f"{name}: {explain(problem)} (it is {problem['input']!r})"


if __name__ == "__main__":
    for name, default, about in keys():
        print(f"{name:22} {default:22} {about}")
