"""How pages write numbers: one sign for minus, thousands apart in counts, a dash for none."""

from django import template

register = template.Library()


@register.filter
def number(value: float | None, places: int = 0) -> str:
    """A count with its thousands apart (3,000), a measured value to so many places (−12.5)."""
    if value is None:
        return "–"
    if isinstance(value, int):
        text = f"{value:,}"
    else:
        text = f"{round(float(value), places) + 0.0:.{places}f}"  # + 0.0: nothing reads −0
    return text.replace("-", "−")
