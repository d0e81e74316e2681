"""The form that proposes an experiment: how its fields look, and how they become `PlanInput`.

The rules are the schema's and the arena's; each objection is shown at its field.
"""

from collections.abc import Sequence
from typing import Any

from django import forms
from pydantic_core import PydanticUndefined

from arena.experiments.proposal import (
    NAME_LENGTH,
    WEBHOOK_LENGTH,
    NotStarted,
    Objection,
    PlanInput,
    read_input,
)
from arena.models import Panel
from generation.catalogue.categories import Category
from generation.models import RENDERED_STATES, PromptSet, Version


class Percent(forms.IntegerField):
    """A share of 0 to 1, given in percent."""

    def __init__(self, **more: Any) -> None:
        super().__init__(min_value=0, max_value=100, **more)

    def clean(self, value: Any) -> float | None:
        percent = super().clean(value)
        return None if percent is None else percent / 100


class ExperimentForm(forms.Form):
    candidate = forms.ModelChoiceField(
        Version.objects.none(), to_field_name="slug", help_text="The version to test."
    )
    baseline = forms.ModelChoiceField(
        Version.objects.none(), to_field_name="slug", help_text="The version to compare it with."
    )
    category = forms.ChoiceField(choices=Category)
    prompt_set = forms.ModelChoiceField(PromptSet.objects.all(), to_field_name="slug")
    seed_slots = forms.IntegerField(label="Clip pairs per prompt", help_text="One seed each.")
    margin = forms.FloatField(
        help_text="The smallest loss you want to catch, in normalised Elo. Smaller losses may get "
        "either verdict.",
    )
    alpha = forms.FloatField(
        help_text="Chance of passing a candidate that is worse by the margin, and of the e-process "
        "failing one that is not worse.",
    )
    beta = forms.FloatField(
        help_text="Chance that the ratio test fails a candidate that is not worse."
    )
    max_votes = forms.IntegerField(
        label="Maximum votes", help_text="Must be even, because each clip pair is judged twice."
    )
    panels = forms.ModelMultipleChoiceField(
        Panel.objects.all(),
        to_field_name="slug",
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )
    public_share = Percent(
        label="Share of the public stream",
        initial=0,
        help_text="Percent of the pairs shown to public voters in this category.",
    )
    muted_share = Percent(
        label="Shown without sound",
        help_text="Percent of the blocks. Measures how much the sound matters.",
    )
    webhook = forms.CharField(
        required=False, max_length=WEBHOOK_LENGTH, help_text="URL that receives the verdict."
    )
    name = forms.CharField(
        required=False,
        max_length=NAME_LENGTH,
        help_text="Default: the names of the versions and the category.",
    )
    tie_rate = Percent(
        label="Expected ties", required=False, help_text="Percent. Default: as in this category."
    )
    voters = forms.IntegerField(
        label="Expected voters",
        required=False,
        help_text="Default: the panels’ members and last week’s public voters.",
    )

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more | {"label_suffix": ""})
        versions = Version.objects.filter(state__in=RENDERED_STATES)
        for name in ("candidate", "baseline"):
            field = self.fields[name]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = versions.order_by("name")
            field.label_from_instance = _name_with_state  # type: ignore[method-assign, assignment]
            field.error_messages["invalid_choice"] = (
                "No version of this name is active or on trial."
            )
        for name, field in self.fields.items():
            default = PlanInput.model_fields[name].default
            if field.initial is None and default is not PydanticUndefined:
                field.initial = default
            if field.help_text:
                field.widget.attrs["aria-describedby"] = f"help-{name}"

    def clean(self) -> dict[str, Any]:
        """With every field sound in itself, `asked` is what they say together."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                self.asked = read_input(PlanInput, _with_slugs(cleaned))
            except NotStarted as refused:
                self.add_objections(refused.objections)
        return cleaned

    def add_objections(self, objections: Sequence[Objection]) -> None:
        for objection in objections:
            self.add_error(objection.field, objection.sentence)


def _with_slugs(cleaned: dict[str, Any]) -> dict[str, Any]:
    slugs = {name: cleaned[name].slug for name in ("candidate", "baseline", "prompt_set")}
    return {**cleaned, **slugs, "panels": [panel.slug for panel in cleaned["panels"]]}


def _name_with_state(version: Version) -> str:
    state = "" if version.state == "active" else f" ({version.get_state_display().lower()})"
    return f"{version.name}{state}"
