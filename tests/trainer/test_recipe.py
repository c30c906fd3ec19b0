from pathlib import Path

import pytest
import torch

import trainer
from pipeline.errors import UserError
from trainer.recipe import Recipe, load_recipe
from trainer.schedule import one_cycle

RECIPES = sorted((Path(trainer.__file__).parents[1] / "configs" / "training").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid(path: Path) -> None:
    assert load_recipe(path).epochs > 0


def test_the_article_is_kept_to_the_letter() -> None:
    recipe = load_recipe(next(path for path in RECIPES if path.stem == "article"))
    assert (recipe.width, recipe.epochs, recipe.batch) == (64, 30, 128)
    assert (recipe.lr, recipe.clip_value, recipe.augment.crop_padding) == (0.001, 0.1, 4)
    assert recipe.augment.flip == 0.5
    assert recipe.leave_out == []
    assert (recipe.augment.rotate, recipe.mixup, recipe.ema, recipe.label_smoothing) == (0, 0, 0, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text("epochs: 3\nlr: 0.01\n")
    return path


def test_overrides_are_applied_and_typed(path: Path) -> None:
    recipe = load_recipe(path, ["epochs=5", "augment.rotate=10", "sizes=[[0.5,32],[1.0,48]]"])
    assert (recipe.epochs, recipe.augment.rotate) == (5, 10)
    assert [recipe.size_at(epoch) for epoch in range(5)] == [32, 32, 32, 48, 48]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=5", "unknown key 'epoch'; did you mean 'epochs'"),
        ("augment.rotat=5", r"unknown key 'augment\.rotat'; did you mean 'rotate'"),
        ("epochs=many", r"epochs: a whole number is needed \(it is 'many'\)"),
        ("epochs=0", "epochs: it must be at least 1"),
        ("epochs=yes", "epochs: true and false are no numbers"),
        ("sizes=[[yes,48]]", "sizes: true and false are no numbers"),
        ("distill=off", "distill: a mapping is needed"),
        ("init=no", "init: text is needed"),
        ("augment.scale=[0.8,on]", r"augment\.scale: true and false are no numbers"),
        ("compile=maybe", "compile: true or false is needed"),
        ("augment.flip=2", r"augment\.flip: "),
        ("sizes=[[0.5,48]]", "end with share 1.0"),
        ("sizes=[[1.0,50]]", "multiple of 8"),
        ("leave_out=[ugly]", "leave_out"),
        ("seed=-1", "seed: it must be at least 0"),
        ("seed=200000000000000", r"seed: it must be less than 4294967296 \("),
        ("epochs", "key=value"),
        ("lr=[", "not YAML"),
        ("epochs=2024-13-45", "not YAML"),
        ("epochs=!!int ''", "not YAML"),
        ("compile=!!bool maybe", "not YAML"),
        ('description="\\UFFFFFFFF"', "not YAML"),
        (f"epochs=0x{'f' * 2000}", "not YAML"),
        (f"epochs={'[' * 3000}", "not YAML"),
        ("epochs.x=1", "has no parts"),
    ],
)
def test_a_wrong_override_is_named(path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(path, [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n", "must be a mapping"),
        ("a: [", "not a YAML"),
        ("lr: 2024-13-45", "not a YAML recipe: month must be in"),
        ("lr: !!float ''", "not a YAML recipe: it has a value that cannot be read"),
        (f"lr: 0x{'f' * 5000}", "not a YAML recipe: a number of more than 1,000 digits"),
        ("lr: 1\n", "'epochs' is missing"),
        ("lr: 1\nepochs: 3\nlr: 2\n", "'lr' stands there twice .*line 3"),
        ("lr: 1\nepochs: 3\naugment: {flip: true, flip: false}\n", "'flip' stands there twice"),
        (None, "no such recipe: "),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_recipe(path)


def test_of_what_is_too_long_for_a_recipe_only_the_beginning_is_read() -> None:
    with pytest.raises(UserError, match="^/dev/zero is not a recipe: it has more than 1,000,000 characters$"):
        load_recipe("/dev/zero")


def test_a_recipe_survives_its_own_file(path: Path) -> None:
    recipe = load_recipe(path)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_the_essence_leaves_out_only_what_does_not_decide(path: Path) -> None:
    plain = load_recipe(path)
    assert load_recipe(path, ["description=mine"]).essence() == plain.essence()
    here, there, other = (
        load_recipe(path, [f"distill={{teachers: [{place}/a.safetensors], share: {share}}}"])
        for place, share in (("here", 0.5), ("there", 0.5), ("here", 0.6))
    )
    assert here.essence() == there.essence()
    assert other.essence() != here.essence() != plain.essence() != load_recipe(path, ["seed=1"]).essence()


@pytest.mark.parametrize("warmup", [0.1, 0.3, 0.5])
def test_one_cycle_is_torchs(warmup: float) -> None:
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=50, pct_start=warmup)
    for step in range(50):
        group = optimizer.param_groups[0]
        assert one_cycle(step, 50, 0.01, warmup) == pytest.approx((group["lr"], group["betas"][0]), rel=1e-6)
        optimizer.step()
        if step < 49:
            theirs.step()


@pytest.mark.parametrize(
    ("given", "hint"),
    [("article", "article"), ("article.yaml", "article"), ("configs/training/artcle.yaml", "article")],
)
def test_a_shipped_recipe_is_found_by_its_name(given: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(UserError) as caught:
        load_recipe(given)
    assert str(caught.value) == f"no such recipe: {given}; did you mean 'configs/training/{hint}.yaml'?"


def test_shipped_recipes_are_named_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"; did you mean '{root}/configs/training/finetune.yaml'\?$"):
        load_recipe("finetune")
    with pytest.raises(UserError, match=rf"no such recipe: mine; known: {root}/configs/training/article.yaml, "):
        load_recipe("mine")


def test_whether_code_is_compiled_is_not_of_a_runs_essence(path: Path) -> None:
    assert load_recipe(path, ["compile=no"]).essence() == load_recipe(path).essence()
    assert load_recipe(path, ["lr=0.1"]).essence() != load_recipe(path).essence()
