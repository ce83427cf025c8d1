"""What the plan of a set says a person should know of it: on the card, in the record, on the page."""

from __future__ import annotations

from mgdm_cli.data.card import card, readme
from mgdm_cli.data.cautions import cautions
from mgdm_cli.data.noting import UNKNOWN_PATIENTS
from mgdm_cli.data.plan import Filters, Plan, Skill, cut, read_plan
from tests.data.maker import make_plan


def with_classes(real: dict[str, int], quotas: dict[str, int], **more: object) -> Plan:
    plan = make_plan()
    recipe = plan.recipe.model_copy(update={"filters": Filters(copy_alpha=0.01, copy_threshold=0.2)})
    told = {"classes": tuple(real), "real": real, "lots": cut(quotas, tuple(real)), "asked": sum(quotas.values())}
    return plan.model_copy(update={"recipe": recipe, **told, **more})


def test_a_usual_set_needs_no_caution() -> None:
    plan = with_classes({"a": 60, "b": 400}, {"a": 10, "b": 10})
    assert cautions(plan) == ()
    assert "## Cautions" not in readme(card(plan, (), ()))


def test_each_oddity_is_told_once_and_stands_on_the_card() -> None:
    plan = with_classes(
        {"d": 12, "b": 400, "c": 5}, {"d": 10, "b": 10, "c": 0}, asked=50, patients_known=False, max_per_real=2.0
    )
    plan = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"filters": Filters(copy_alpha=0.01)})})
    found = cautions(plan)
    assert found[0] == UNKNOWN_PATIENTS
    assert [line.split(":")[0] for line in found[1:]] == [
        "class d",
        "class c is left out",
        "50 images were asked for and 20 planned",
        "the copy gate refuses only nearly the same picture as a training image",
    ]
    content = card(plan, (), ())
    assert content["cautions"] == list(found)
    assert cautions(read_plan(plan.to_bytes())) == found
    assert readme(content).count("\n- Class d: 12 real images were learnt from") == 1


def test_a_small_class_that_nobody_asked_for_is_not_left_out() -> None:
    for changes in ({"command": "sample"}, {"balance": "a=10"}):
        assert cautions(with_classes({"a": 60, "b": 5}, {"a": 10, "b": 0}, **changes)) == ()
    assert len(cautions(with_classes({"a": 60, "b": 5}, {"a": 10, "b": 0}, balance="equal"))) == 1


def test_a_judge_that_hardly_beats_a_guess_is_told() -> None:
    """The gate lets through what it sees, so that the share of labels kept says nothing by itself."""
    able, weak = (Skill(accuracy=a, lo=a - 0.2, hi=a + 0.2, chance=0.33) for a in (0.8, 0.41))
    told = {}
    for judge in (able, weak):
        plan = with_classes({"a": 60, "b": 400}, {"a": 10, "b": 10}, skill={"judge": judge})
        told[judge.accuracy] = cautions(plan)
        assert f"balanced accuracy on held-out real images is {judge.accuracy:.2f}" in readme(card(plan, (), ()))
    assert told[0.8] == ()
    free = plan.recipe.model_copy(update={"filters": Filters(label=False, copy_alpha=0.01, copy_threshold=0.2)})
    loose = plan.model_copy(update={"recipe": free})
    (told_so,) = cautions(loose)  # no label hangs on that judge
    assert "--no-filters" in told_so
    assert "the filter asks for it" in readme(card(plan, (), ()))
    assert "the filter asks for it" not in readme(card(loose, (), ()))
    assert (
        "the judge, which says whether a label was kept, hardly beats a guess: holdout balanced accuracy 0.41"
        in told[0.41][0]
    )


def test_a_plan_of_known_patients_has_the_bytes_it_had() -> None:
    plan = make_plan()
    assert b"patients_known" not in plan.to_bytes()
    strange = plan.model_copy(update={"patients_known": False})
    assert read_plan(strange.to_bytes()) == strange
