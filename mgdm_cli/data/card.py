"""The card of a data set: what it is, what it is not, how it was made.

The headings of its scorecard are those of the FDA authors, "Scorecards for Synthetic Medical Data" (arXiv 2406.11143):
congruence, coverage, constraint, completeness, compliance, comprehension, consistency. A figure that was not
measured is said to be so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from mgdm_cli.data.cautions import cautions
from mgdm_cli.data.codecs.marks import NOTICE
from mgdm_cli.data.manifest import Entry, Measures, Rejected
from mgdm_cli.data.plan import NOT_STATED, Plan

KEEP_IN_HOUSE = (
    "combined.csv names your real files, config.resolved.toml holds your command line, and report.html and .mgdm/ may show real images "
    "or rejected near-copies of them: leave these four out when the folder is passed on."
)


def card(plan: Plan, entries: Sequence[Entry], rejected: Sequence[Rejected]) -> dict[str, Any]:
    """The card's content as a JSON document; `readme` gives it in words."""
    made = Counter(entry.label for entry in entries)
    quotas = plan.quotas
    reasons = Counter(row.reason for row in rejected)
    return {
        "warning": NOTICE,
        "name": plan.statement.name,
        "images": len(entries),
        "classes": [
            {
                "label": label,
                "class_index": number,
                "real": plan.real.get(label, 0),
                "planned": quotas[label],
                "synthetic": made[label],
                "together": plan.real.get(label, 0) + made[label],
            }
            for number, label in enumerate(plan.classes)
        ],
        "asked": plan.asked,
        "balance": plan.balance,
        "real_data": plan.statement.model_dump(mode="json"),
        "generator": _generator(plan),
        "form": {
            "codec": plan.form.codec,
            "dtype": plan.form.dtype,
            "channels": plan.form.channels,
            "height": plan.form.height,
            "width": plan.form.width,
            "modality": plan.form.modality,
        },
        "cautions": list(cautions(plan)),
        "rejected": dict(sorted(reasons.items())),
        "measured": _measured(entries),
        "plan_sha256": plan.run,
        "inputs_sha256": plan.inputs,
        "share": KEEP_IN_HOUSE,
    }


def _generator(plan: Plan) -> dict[str, Any]:
    recipe = plan.recipe
    return {
        "versions": plan.versions,
        "machine": plan.machine.model_dump(mode="json"),
        "date": plan.date,
        "seed": plan.seed,
        "models": plan.models.model_dump(mode="json"),
        "skill": {name: able.model_dump(mode="json") for name, able in plan.skill.items()},
        "process": recipe.process,
        "sampler": recipe.sampler,
        "steps": recipe.steps,
        "guidance": recipe.guidance,
        "strength": recipe.strength,
        "mode": recipe.mode,
        "depth": recipe.depth,
        "filters": recipe.filters.model_dump(mode="json"),
    }


def _measured(entries: Sequence[Entry]) -> dict[str, float | None]:
    """Means over the accepted images; None where nothing was measured."""

    def mean(values: Sequence[float]) -> float | None:
        return round(sum(values) / len(values), 6) if values else None

    def entropies(side: Callable[[Entry], Measures | None]) -> list[float]:
        found = (side(entry) for entry in entries)
        return [m.entropy for m in found if m is not None and m.entropy is not None]

    return {
        "entropy_before": mean(entropies(lambda entry: entry.before)),
        "entropy_after": mean(entropies(lambda entry: entry.after)),
        "label_kept": mean([float(e.label_kept) for e in entries if e.label_kept is not None]),
        "lowest_copy_score": min((e.copy_score for e in entries if e.copy_score is not None), default=None),
    }


def readme(content: dict[str, Any]) -> str:
    """README.md: the card in Markdown, with the front matter that the Hugging Face hub reads."""
    sections = [
        _head(content),
        _cautions(content),
        _balance(content),
        _made(content),
        _seven(content),
        _use(content),
    ]
    return "\n".join(line for section in sections if section for line in (*section, "")).rstrip() + "\n"


def _head(content: dict[str, Any]) -> list[str]:
    real = content["real_data"]
    title = "Synthetic images" + (f": {content['name']}" if content["name"] != NOT_STATED else "")
    return [
        "---",
        f"pretty_name: {_quoted(title)}",
        "license: other",
        f"license_name: {_quoted(real['licence'])}",
        "task_categories:",
        "- image-classification",
        "tags:",
        "- synthetic",
        "- medical",
        "---",
        "",
        f"# {_plain(title)}",
        "",
        f"**{content['warning']}.** {_origin(content)} Each file carries a mark that says so.",
        "",
        f"{content['images']} images in {len(content['classes'])} classes, made to stand beside real ones in training.",
        "",
        "## The real data",
        "",
        "As stated by the user; mgdm did not check it.",
        "",
        *(f"- {key.capitalize()}: {_plain(value)}" for key, value in real.items()),
    ]


def _origin(content: dict[str, Any]) -> str:
    if content["generator"]["depth"] is None:
        return "Every image was drawn by a diffusion model; none was taken of a patient."
    return (
        "Every image was derived by a diffusion model from one real training image and **may resemble that patient**: "
        "keep and share it as you would the real ones."
    )


def _cautions(content: dict[str, Any]) -> list[str]:
    said = [f"- {_plain(line[0].upper() + line[1:])}." for line in content["cautions"]]
    return ["## Cautions", "", *said] if said else []


def _balance(content: dict[str, Any]) -> list[str]:
    rows = [
        f"| {_plain(row['label'])} | {row['real']} | {row['planned']} | {row['synthetic']} | {row['together']} |"
        for row in content["classes"]
    ]
    return [
        "## Class balance",
        "",
        f"{content['asked']} images were asked for, balance `{_plain(content['balance'])}`.",
        "",
        "| class | real (training) | planned | synthetic | together |",
        "|---|---:|---:|---:|---:|",
        *rows,
    ]


def _made(content: dict[str, Any]) -> list[str]:
    made, form = content["generator"], content["form"]
    models = [f"- Weights of the {name}: sha256 `{value}`" for name, value in made["models"].items() if value]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(made["versions"].items()))
    machine = made["machine"]
    return [
        "## How they were made",
        "",
        f"- Process {made['process']}, sampler {made['sampler']}, {made['steps']} steps, guidance {made['guidance']} "
        f"at strength {made['strength']:g} ({made['mode']}).",
        *(
            []
            if made["depth"] is None
            else [f"- From real images, taken back to depth {made['depth']:g} of the way to noise."]
        ),
        *models,
        f"- Stored as {form['codec']}, {form['width']}x{form['height']}, {form['channels']} channel(s), "
        f"{form['dtype']}.",
        f"- {versions}; {machine['device']}, {machine['cpu_capability']}, {machine['threads']} thread(s).",
        f"- Plan sha256 `{content['plan_sha256']}`, seed {made['seed']}. The same plan on the same class of machine "
        "gives the same bytes.",
    ]


def _seven(content: dict[str, Any]) -> list[str]:
    measured, rejected, filters = content["measured"], content["rejected"], content["generator"]["filters"]
    turned = ", ".join(f"{reason} {count}" for reason, count in rejected.items()) or "none"
    short = [f"{_plain(row['label'])} {row['planned'] - row['synthetic']}" for row in content["classes"] if _lacks(row)]
    copies = "The copy filter was off."
    if filters["copy_alpha"] is not None:
        copies = "The copy filter had too few images to be set by: only nearly the same pictures were dropped."
    if filters["copy_threshold"] is not None:
        copies = (
            f"Candidates with a copy score below {filters['copy_threshold']:.4g} were dropped; the lowest score "
            f"kept is {_number(measured['lowest_copy_score'])}."
        )
    return [
        "## Scorecard",
        "",
        f"- **Congruence** (like the real): share of images whose label a held-out classifier confirms: "
        f"{_number(measured['label_kept'])}{_judge(content)}. Distances to real images: not measured here; run `mgdm evaluate`.",
        "- **Coverage** (as varied as the real): mean classifier entropy before guidance: "
        f"{_number(measured['entropy_before'])}, after: {_number(measured['entropy_after'])}. Spread: not measured "
        "here; run `mgdm evaluate`.",
        f"- **Constraint** (within what is possible): candidates turned down: {turned}.",
        f"- **Completeness**: images missing from the plan: {', '.join(short) or 'none'}.",
        "- **Compliance**: marked as synthetic inside every file; every header is new, none was copied. "
        f"{copies} This is no proof of privacy: a filter of distances misses leaks that membership tests find.",
        "- **Comprehension**: with a guidance other than none the images are chosen to be hard for a classifier, so "
        "their difficulty is not that of patients. What the real images lack, these lack too.",
        "- **Consistency**: every row of manifest.jsonl holds seed, block and hash; `mgdm verify` checks them all.",
    ]


def _judge(content: dict[str, Any]) -> str:
    made = content["generator"]
    judge = made["skill"].get("judge")
    if judge is None:
        return ""
    asks = "the filter asks for it; " if made["filters"]["label"] else ""
    able = f"{judge['accuracy']:.2f} [{judge['lo']:.2f}, {judge['hi']:.2f}], a guess {judge['chance']:.2f}"
    return f" ({asks}that classifier's balanced accuracy on held-out real images is {able})"


def _use(content: dict[str, Any]) -> list[str]:
    return [
        "## Use",
        "",
        "- `images/` with `images/metadata.csv` loads as a Hugging Face imagefolder; `datalist.json` is for MONAI; "
        "`combined.csv` lists real rows (paths relative to the input folder) and synthetic ones (relative to this).",
        "- Train with them, never test on them: test sets stay real.",
        f"- {content['share']}",
    ]


def _lacks(row: dict[str, Any]) -> bool:
    return bool(row["planned"] > row["synthetic"])


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _plain(text: str) -> str:
    """Text of a user as one line of Markdown that cannot open a tag, a table or a link."""
    one = " ".join(text.split())
    return "".join("\\" + c if c in "\\`*_{}[]<>|#" else c for c in one)


def _quoted(text: str) -> str:
    """A YAML double-quoted string."""
    one = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{one}"'
