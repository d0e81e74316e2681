"""The form that proposes an experiment. What speaks against it is told at the field it is about."""

from typing import Any

from django import forms

from arena.experiments import NotStarted, Proposal, default_name, objections
from arena.models import Experiment, Panel
from generation.categories import Category
from generation.models import RENDERED_STATES, PromptSet, Version
from ratings.pipeline import MOST_VOTERS, start_or_find
from ratings.stats.sequential import LEAST_VOTERS

# How the sentences about each field begin (arena/experiments.py); others stand above the form.
ABOUT = (
    ("name", "An experiment needs a name"),
    ("margin", "The margin"),
    ("alpha", "Alpha"),
    ("beta", "Beta"),
    ("max_votes", "The most votes"),
    ("public_share", "The public share"),
    ("public_share", "Nobody may vote"),
    ("muted_share", "The muted share"),
    ("webhook", "The webhook"),
    ("webhook", "There is no WEBHOOK_SECRET"),
    ("prompt_set", "The prompt set"),
)


class Percent(forms.IntegerField):
    """A share of 0 to 1, given in percent."""

    def __init__(self, **more: Any) -> None:
        super().__init__(min_value=0, max_value=100, **more)

    def clean(self, value: Any) -> float | None:
        percent = super().clean(value)
        return None if percent is None else percent / 100


class ExperimentForm(forms.Form):
    candidate = forms.ModelChoiceField(
        Version.objects.none(), to_field_name="slug", help_text="The version that is in question."
    )
    baseline = forms.ModelChoiceField(
        Version.objects.none(), to_field_name="slug", help_text="The version it is held against."
    )
    category = forms.ChoiceField(choices=Category)
    prompt_set = forms.ModelChoiceField(PromptSet.objects.all(), to_field_name="slug")
    seed_slots = forms.IntegerField(
        label="Clip pairs per prompt", min_value=1, initial=1, help_text="One seed each."
    )
    margin = forms.FloatField(
        initial=25,
        help_text="Normalised Elo: one worse by so much must not pass. Between that and even, "
        "either verdict can come.",
    )
    alpha = forms.FloatField(
        initial=0.05,
        help_text="Chance that one worse by the margin passes, and that the e-process fails one "
        "that is not worse.",
    )
    beta = forms.FloatField(
        initial=0.05, help_text="Chance that the ratio test fails one that is not worse."
    )
    max_votes = forms.IntegerField(
        label="Most votes", initial=3000, help_text="Even: each clip pair is judged twice."
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
        help_text="Percent of the category’s pairs that public voters are shown.",
    )
    muted_share = Percent(
        label="Shown without sound",
        initial=0,
        help_text="Percent of the blocks; tells how much the sound matters.",
    )
    webhook = forms.CharField(
        required=False, max_length=500, help_text="An address that is sent the verdict."
    )
    name = forms.CharField(
        required=False, max_length=120, help_text="Empty: made of the versions and the category."
    )
    tie_rate = Percent(
        label="Ties to expect", required=False, help_text="Percent. Empty: as in this category."
    )
    voters = forms.IntegerField(
        label="Voters to expect",
        required=False,
        min_value=LEAST_VOTERS,
        max_value=MOST_VOTERS,
        help_text="Empty: the panels’ seats and the public’s of last week.",
    )

    VERSIONS = ("candidate", "baseline", "category", "prompt_set", "seed_slots")
    TEST = ("margin", "max_votes", "alpha", "beta")
    VOTING = ("panels", "public_share", "muted_share")
    REST = ("name", "webhook", "tie_rate", "voters")

    def __init__(self, *args: Any, by: str, **more: Any) -> None:
        super().__init__(*args, **more | {"label_suffix": ""})
        self.by = by
        versions = Version.objects.filter(state__in=RENDERED_STATES)
        for name in ("candidate", "baseline"):
            field = self.fields[name]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = versions.order_by("name")
            field.label_from_instance = _name_of  # type: ignore[method-assign, assignment]
            field.error_messages["invalid_choice"] = (
                "No version of this name is active or on trial."
            )
        for name, field in self.fields.items():
            if field.help_text:
                field.widget.attrs["aria-describedby"] = f"help-{name}"

    def clean(self) -> dict[str, Any]:
        """With every field sound in itself, ask what speaks against the whole."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            self.object_to(objections(self.proposal()))
        return cleaned

    def object_to(self, sentences: list[str]) -> None:
        for sentence in sentences:
            self.add_error(self._field_of(sentence), sentence)

    def _field_of(self, sentence: str) -> str | None:
        for field, begin in ABOUT:
            if sentence.startswith(begin):
                return field
        if sentence.endswith("choose another baseline."):
            return "baseline"
        for field in ("candidate", "baseline"):
            if sentence.startswith(f"{self.cleaned_data[field].slug} "):
                return field
        if sentence.startswith(f"{self.cleaned_data['seed_slots']} clip pairs"):
            return "seed_slots"
        return "muted_share" if sentence.endswith("make the muted share 0.") else None

    def proposal(self) -> Proposal:
        """What the fields say; only of a form whose fields are sound."""
        said = self.cleaned_data
        candidate, baseline = said["candidate"], said["baseline"]
        fixed = {
            name: said[name]
            for name in (
                *self.VERSIONS,
                *self.TEST,
                "public_share",
                "muted_share",
                "webhook",
            )
        }
        return Proposal(
            **fixed,
            name=said["name"] or default_name(candidate, baseline, said["category"]),
            panels=tuple(said["panels"]),
            created_by=self.by,
        )

    def start(self) -> Experiment | None:
        """Start it, or find it if the button was pressed twice; None, with the sentences at their
        fields, if something speaks against it."""
        try:
            return start_or_find(self.proposal(), running_only=True)[0]
        except NotStarted as refused:
            self.object_to(refused.sentences)
            return None


def _name_of(version: Version) -> str:
    state = "" if version.state == "active" else f" ({version.get_state_display().lower()})"
    return f"{version.name}{state}"
