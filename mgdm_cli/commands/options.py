"""The options that commands share, as annotated types: `def command(data: options.Data, seed: options.Seed = 0)`.

Values arrive checked but plain (text, numbers, paths), so that `config.resolved.toml` can hold them; `values` reads the
written forms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mgdm_cli import config, console
from mgdm_cli.commands.values import bytes_of, check_device, check_duration, check_pattern, checked, nan_of, size_of

INPUT, OUTPUT, RUN = "Input", "Output", "Run"  # panels of the help text


def _read_config(ctx: typer.Context, value: Path | None) -> Path | None:
    """The file's values become the defaults of the other flags (the option is eager: it is read before them)."""
    if value is not None and not ctx.resilient_parsing:
        ctx.default_map = {**(ctx.default_map or {}), **config.defaults(value, ctx.command.params)}
    return value


def _set_json(value: bool) -> bool:
    console.configure(as_json=value)
    return value


def _set_quiet(value: bool) -> bool:
    console.configure(quiet=value)
    return value


# --- how it runs and talks --------------------------------------------------------------------------------------------

Seed = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        max=2**63 - 1,
        help="Same seed, same split, training and images.",
        rich_help_panel=RUN,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device", metavar="NAME", callback=check_device, help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=RUN
    ),
]


def longest(said: str, panel: str = RUN) -> Any:
    """The flag --budget with this help: the longest that what a command trains may take."""
    return typer.Option("--budget", metavar="TIME", callback=check_duration, help=said, rich_help_panel=panel)


Budget = Annotated[
    str | None,
    longest("Longest training: 90s, 30m, 2h. At a terminal 30m as a rule (distill: 10m); a script has to say it."),
]
SaveEvery = Annotated[
    str,
    typer.Option(
        "--save-every", metavar="TIME", callback=check_duration, help="Time between checkpoints.", rich_help_panel=RUN
    ),
]
SAVE_EVERY = "5m"
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Candidates in a block; part of the plan.", rich_help_panel=RUN),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Say what would be done, how long and how large; write nothing.", rich_help_panel=RUN
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        callback=_read_config,
        help="Read flags from a file (flag = value, long names); flags given here win.",
        rich_help_panel=RUN,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        is_eager=True,
        callback=_set_json,
        help="One JSON document on stdout; people read stderr.",
        rich_help_panel=RUN,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", is_eager=True, callback=_set_quiet, help="No progress and no remarks.", rich_help_panel=RUN
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Folder to write; as a rule beside the input.", rich_help_panel=OUTPUT
    ),
]

# --- what is read -----------------------------------------------------------------------------------------------------

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        "-d",
        metavar="DIR",
        help="Folder of images: a sub-folder per class, or see --labels.",
        rich_help_panel=INPUT,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="TABLE.csv",
        help="Table path,label[,patient,split] instead of sub-folders.",
        rich_help_panel=INPUT,
    ),
]
LabelTag = Annotated[
    str | None,
    typer.Option(
        "--label-tag",
        metavar="KEYWORD",
        help="DICOM attribute that holds the class, as BodyPartExamined.",
        rich_help_panel=INPUT,
    ),
]
PatientRegex = Annotated[
    str | None,
    typer.Option(
        "--patient-regex",
        metavar="REGEX",
        callback=check_pattern,
        help=r"The patient in a file name: one group, as '(P\d+)_'.",
        rich_help_panel=INPUT,
    ),
]
Frames = Annotated[
    Literal["first", "all"] | None,
    typer.Option("--frames", help="Which frames of a multi-frame file are images.", rich_help_panel=INPUT),
]
Slices = Annotated[
    Literal["axial", "coronal", "sagittal"] | None,
    typer.Option("--slices", help="Cut volumes into images along this plane.", rich_help_panel=INPUT),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="N|HxW",
        callback=checked(size_of),
        help="Size to learn and write when sizes differ; downsampling only.",
        rich_help_panel=INPUT,
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave unreadable files out and list them.", rich_help_panel=INPUT),
]
MaxSkip = Annotated[
    float,
    typer.Option(
        "--max-skip", min=0.0, max=1.0, help="Share of files that --skip-bad may leave out.", rich_help_panel=INPUT
    ),
]
AllowSynthetic = Annotated[
    bool,
    typer.Option(
        "--allow-synthetic-input",
        help="Accept images that are marked as synthetic, and record it.",
        rich_help_panel=INPUT,
    ),
]
AllowBurnedIn = Annotated[
    bool,
    typer.Option("--allow-burned-in", help="Accept images that may show text of the patient.", rich_help_panel=INPUT),
]
MaxFileSize = Annotated[
    str | None,
    typer.Option(
        "--max-file-size",
        metavar="SIZE",
        callback=checked(bytes_of),
        help="Largest image file, packed or unpacked: 512M, 2G; 1G as a rule.",
        rich_help_panel=INPUT,
    ),
]
Nan = Annotated[
    str | None,
    typer.Option(
        "--nan",
        metavar="fill=V",
        callback=checked(nan_of),
        help="Put the number V where a value is NaN or infinite.",
        rich_help_panel=INPUT,
    ),
]
Fit = Annotated[
    Literal["pad", "crop", "stretch"],
    typer.Option("--fit", help="How an image of another shape comes to --size.", rich_help_panel=INPUT),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="C,W|voi",
        help="Learn this intensity window, as 40,400; voi: the header's.",
        rich_help_panel=INPUT,
    ),
]
RequirePatientId = Annotated[
    bool,
    typer.Option("--require-patient-id", help="Refuse a set whose patients are not known.", rich_help_panel=INPUT),
]

# --- how it learns ----------------------------------------------------------------------------------------------------

Seen = Annotated[
    int | None,
    typer.Option(
        "--seen",
        min=1,
        metavar="N",
        help="Length of training in images seen, instead of --budget.",
        rich_help_panel=RUN,
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        "--width", min=8, max=512, help="Channels of the U-Net's first level; 48 as a rule.", rich_help_panel=RUN
    ),
]
Base = Annotated[
    str,
    typer.Option(
        "--base",
        metavar="NAME",
        help="Base model to start training from: auto, none, or a name of mgdm models.",
        rich_help_panel=RUN,
    ),
]
ProcessName = Annotated[
    str | None,
    typer.Option("--process", metavar="NAME", help="edm (as a rule), vp, ve, subvp or flow.", rich_help_panel=RUN),
]
Flip = Annotated[
    bool,
    typer.Option(
        "--flip", help="Learn left-right flips too; not where sides matter (heart, eyes).", rich_help_panel=RUN
    ),
]

# --- how images are drawn ---------------------------------------------------------------------------------------------

SAMPLING = "Sampling"
SAMPLER_NAMES = "euler, heun, ddim, ddpm, dpmpp_2m, unipc, sde, churn, dpmpp_2m_sde, langevin or pc."

SAMPLER_HELP = (
    f"As a rule dpmpp_2m_sde without noise below sigma 1, ddpm for students, ddim from real images; {SAMPLER_NAMES}"
)
SamplerName = Annotated[
    str | None, typer.Option("--sampler", metavar="NAME", help=SAMPLER_HELP, rich_help_panel=SAMPLING)
]
STEPS_HELP = "Steps of the sampler: 13 as a rule in augment, 18 in sample; a student has its own."
Steps = Annotated[int | None, typer.Option("--steps", min=1, help=STEPS_HELP, rich_help_panel=SAMPLING)]
SCALE_HELP = (
    "Scale of cfg or auto guidance, 1 is off; as a rule the one that suits the run (auto: 2.5); in a student already."
)
Scale = Annotated[float | None, typer.Option("--scale", min=0.0, help=SCALE_HELP, rich_help_panel=SAMPLING)]
Knobs = Annotated[
    list[str] | None,
    typer.Option("--knob", metavar="NAME=VALUE", help="A knob of the sampler, as eta=0.5.", rich_help_panel=SAMPLING),
]
RealImages = Annotated[
    bool,
    typer.Option("--real-images/--no-real-images", help="Show real images in the report.", rich_help_panel=OUTPUT),
]

WriteAs = Annotated[
    str | None,
    typer.Option(
        "--write-as",
        metavar="KIND",
        help="png, tiff, nifti, or DICOM: sc, op (eye), cr, dx, ct, mr.  [default: as the input]",
        rich_help_panel=OUTPUT,
    ),
]

# --- what the card says of the real data ------------------------------------------------------------------------------

CARD = "Card"

SetName = Annotated[str | None, typer.Option("--name", help="Name of the data set.", rich_help_panel=CARD)]
Contact = Annotated[str | None, typer.Option("--contact", help="Whom to ask about it.", rich_help_panel=CARD)]
DataSource = Annotated[
    str | None, typer.Option("--data-source", help="Where the real data come from.", rich_help_panel=CARD)
]
Consent = Annotated[str | None, typer.Option("--consent", help="Consent or approval.", rich_help_panel=CARD)]
Licence = Annotated[str | None, typer.Option("--licence", help="Licence of the real data.", rich_help_panel=CARD)]
