"""The pages: self-contained, escaped, the same bytes for the same content; looked at by a real browser where one is."""

from __future__ import annotations

import base64
import io
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgdm_cli.report.content import (
    Arm,
    AugmentReport,
    ClassRow,
    CopyScores,
    EvaluateReport,
    Facts,
    Figure,
    Gain,
    Neighbour,
    Pair,
    Planted,
    Reject,
    Shelf,
    Spread,
    Utility,
    Verdict,
)
from mgdm_cli.report.page import augment_page, evaluate_page, measure, number, points, share, whole
from mgdm_cli.report.pictures import LARGEST, grid, single, to_bytes

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 24, 32), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
VERDICTS = (
    Verdict("good", "All is well.", question="Is it?", figure="1.0 points\n[0.2, 1.8]"),
    Verdict("plain", "Something to know.", "And why."),
    Verdict("caution", "Careful here."),
    Verdict("bad", "This failed."),
)
SCORES = CopyScores(tuple(np.linspace(0.3, 1, 50)), tuple(np.linspace(0.5, 1, 40)), 0.51, "Calibrated somehow.")
FIGURES = (
    Figure("Fréchet distance", 12.3, "lower", 11.0, 14.0, 9.0, 1.3, 200, "How far apart."),
    Figure("Kernel distance", -0.002, "lower", -0.01, 0.004, 0.001),
    Figure("Refused", None, "higher", reason="too few images"),
    Figure("Share", 0.5, "neither", 0.4, 0.6, percent=True),
)

AUGMENT = AugmentReport(
    title="Fundus",
    summary="Five images.",
    verdicts=VERDICTS,
    classes=(ClassRow("normal", 100, 20, 3, 25), ClassRow("glaucoma", 10, 90)),
    shelves=(Shelf("normal", GREY, GREY[:2]), Shelf("glaucoma", COLOUR)),
    spread=Spread("entropy (nats)", (0.1, 0.2, 0.2), (0.5, 0.6, 0.7), 0.69),
    pairs=(Pair("normal", GREY[0], GREY[1], 0.1, 0.6),),
    rejects=(Reject("label-lost", 3, "Another class was seen.", GREY[:2], ("seen as glaucoma", "seen as normal")),),
    copies=SCORES,
    facts=(Facts("Model", (("weights", "ab" * 32),)),),
    notes=("Nothing about tomorrow.",),
)
UTILITY = Utility(
    (
        Arm("real", "real images alone", 0, 0.71, 0.85, 0.7, 0.08, 0.5, 0.6),
        Arm("dup", "real images and duplicates", 120, 0.72, 0.86, 0.7, 0.09, 0.52, 0.61),
        Arm("guided <b>", "real images and those of a folder", 120, 0.77, 0.9, 0.75, 0.05, 0.6, 0.7),
    ),
    (
        Gain(
            "dup", "real", 0.01, -0.02, 0.03, "no evidence", (("vgg", 0.0, -0.03, 0.02), ("resnet", 0.02, -0.02, 0.05))
        ),
        Gain(
            "guided <b>",
            "real",
            0.06,
            0.02,
            0.1,
            "helps",
            (("vgg", 0.05, 0.01, 0.09), ("resnet", 0.07, 0.0, 0.1)),
            12,
            3,
            0.035,
        ),
        Gain("guided <b>", "dup", -0.05, -0.09, -0.01, "hurts"),
    ),
    "2 nets, 3 seeds.",
)
EVALUATE = EvaluateReport(
    title="Fundus",
    summary="Five against five.",
    verdicts=VERDICTS,
    classes=AUGMENT.classes,
    figures=FIGURES,
    labels=FIGURES[3:],
    copies=SCORES,
    planted=(Planted("exact", 20, 20), Planted("flip", 19, 20)),
    utility=UTILITY,
    leaks=(Figure("Membership, area", 0.52, "lower", 0.47, 0.58, 0.5, percent=True), FIGURES[2]),
    neighbours=(Neighbour("normal-000001", "normal", GREY[0], GREY[1], 0.31, True),),
    shelves=AUGMENT.shelves,
    facts=AUGMENT.facts,
    notes=AUGMENT.notes,
)
PAGES = {"augment": augment_page(AUGMENT), "evaluate": evaluate_page(EVALUATE)}
VOID = {"meta", "link", "img", "br", "line", "circle", "path", "use"}


class Reader(HTMLParser):
    """Tags, ids and references of a page; complains about tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.alts: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [str(given[name]) for name in ("src", "href", "srcset", "action") if name in given]
        self.ids += [str(given["id"])] if "id" in given else []
        if tag == "img":
            self.alts.append(given.get("alt"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def decoded(uri: str) -> Image.Image:
    assert uri.startswith("data:image/png;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))
    image.load()
    return image


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_asks_for_nothing_and_runs_nothing(kind: str) -> None:
    found = read(PAGES[kind])
    assert not {"script", "iframe", "object", "embed", "form"} & set(found.tags)
    assert all(link.startswith(("data:", "#")) for link in found.links)
    assert "default-src 'none'" in PAGES[kind]
    for address in re.findall(r"https?://[^\"'\s<>)]+", PAGES[kind]):
        assert address.startswith("http://www.w3.org/"), address  # the names of SVG, never fetched
    assert "@import" not in PAGES[kind]
    assert "@font-face" not in PAGES[kind]


@pytest.mark.parametrize("kind", PAGES)
def test_every_picture_decodes_and_has_words(kind: str) -> None:
    found = read(PAGES[kind])
    pictures = [link for link in found.links if link.startswith("data:image")]
    assert len(pictures) == found.tags.count("img") > 4
    for uri in pictures:
        decoded(uri)
    assert all(found.alts)


def test_the_same_content_gives_the_same_bytes() -> None:
    assert augment_page(AUGMENT) == PAGES["augment"]
    assert evaluate_page(EVALUATE) == PAGES["evaluate"]


@pytest.mark.parametrize("kind", PAGES)
def test_verdicts_come_first_and_each_has_its_word(kind: str) -> None:
    page = PAGES[kind]
    places = [
        page.index(text)
        for text in ("In short", "All is well.", "This failed.", "Balance of the classes", "Class normal")
    ]
    assert places == sorted(places)
    for word in ("Good", "Note", "Caution", "Problem"):
        assert f'<span class="tone">{word}</span>' in page


@pytest.mark.parametrize("kind", PAGES)
def test_ids_are_unique_where_they_are_referred_to(kind: str) -> None:
    found = read(PAGES[kind])
    for name in re.findall(r'aria-labelledby="([^"]+)"', PAGES[kind]):
        assert found.ids.count(name) == 1


def test_text_from_outside_is_escaped() -> None:
    nasty = "<script>alert(1)</script>\"'&"
    page = augment_page(replace(AUGMENT, title=nasty, shelves=(Shelf(nasty, GREY),), notes=(nasty,)))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    read(page)


def test_an_empty_report_still_is_a_page() -> None:
    page = augment_page(AugmentReport("Nothing", "No images.", (Verdict("plain", "Nothing was made."),), ()))
    assert "Nothing was made." in page
    for heading in ("Balance of the classes", "Figures", "The images", "Nearest", "What was not taken", "Where it"):
        assert heading not in page
    read(evaluate_page(EvaluateReport("Nothing", "", (), (), ())))


def test_the_worth_of_the_images_is_told_before_the_distances() -> None:
    """The forest has a line for every net and a diamond for every arm over real images, and the table says the verdict."""
    page = PAGES["evaluate"]
    assert page.index("In short") < page.index("What the images are worth") < page.index('id="figures"')
    part = page[page.index("What the images are worth") : page.index('id="figures"')]
    for text in ("guided &lt;b&gt;, all nets", "dup, all nets", "points of balanced accuracy over real images"):
        assert text in part
    assert part.count("dup, all nets") == 1  # over dup is in the table alone
    assert re.findall(r'class="tone">([a-z ]+)<', part) == ["no evidence", "helps", "hurts"]
    assert "+6.0" in part
    assert "−9.0 to −1.0" in part
    assert "12 better, 3 worse" in part
    assert "What the images are worth" not in evaluate_page(replace(EVALUATE, utility=None))


def test_differences_carry_their_sign() -> None:
    assert [points(v) for v in (0.0123, -0.0123, 0.0, None)] == ["+1.2", "−1.2", "+0.0", "–"]


def test_real_images_can_be_left_out() -> None:
    hidden = replace(
        EVALUATE,
        shelves=(Shelf("normal", GREY, None),),
        neighbours=(replace(EVALUATE.neighbours[0], real=None),),
    )
    page = evaluate_page(hidden)
    assert "real images of class" not in page
    assert "nearest training image" not in page.lower().replace("nearest to a training image", "")


def test_synthetic_pictures_carry_the_mark_and_real_ones_do_not() -> None:
    assert decoded(grid(GREY, synthetic=True)).info["Synthetic"] == "YES"
    assert decoded(single(GREY[0], synthetic=True)).info["Synthetic"] == "YES"
    assert "Synthetic" not in decoded(grid(GREY)).info


def test_a_grid_shows_every_picture_in_its_place() -> None:
    sheet = np.asarray(decoded(grid(GREY, columns=3)))
    assert sheet.shape == (2 * 24 + 2, 3 * 32 + 4, 2)
    for i in range(5):
        top, left = i // 3 * 26, i % 3 * 34
        assert np.array_equal(sheet[top : top + 24, left : left + 32, 0], GREY[i])
    assert np.all(sheet[26:, 68:, 1] == 0)  # the empty place is transparent
    assert np.array_equal(np.asarray(decoded(grid(COLOUR)))[:, :24, :3], COLOUR[0])


def test_large_pictures_are_averaged_down() -> None:
    large = np.zeros((1, 400, 200), np.uint8)
    large[:, ::2] = 200
    small = np.asarray(decoded(single(large[0])).convert("L"))
    assert max(small.shape) == LARGEST
    assert abs(int(small.mean()) - 100) <= 2


def test_tensors_become_pictures() -> None:
    x = np.array([-1.0, 0.0, 1.0, 2.0], dtype=np.float32).reshape(1, 1, 2, 2)
    assert to_bytes(x).tolist() == [[[0, 128], [255, 255]]]
    assert to_bytes(np.zeros((2, 3, 4, 5), np.float32)).shape == (2, 4, 5, 3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
        (0.0, "0"),
        (1234.5, "1234"),
        (12.345, "12.3"),
        (0.5, "0.500"),
        (-0.00214, "−0.00214"),
        (0.0000031, "3.10 × 10^−6"),
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_other_forms_of_numbers() -> None:
    assert whole(1234567) == "1\u202f234\u202f567"
    assert share(0.1234) == "12.3\u202f%"
    assert share(None) == "–"
    assert measure(0.6) == "0.60"


@pytest.mark.parametrize("kind", PAGES)
def test_no_page_promises_too_much(kind: str) -> None:
    assert not re.search(r"\bprivate\b|anonym|GDPR|differential privacy", PAGES[kind], re.IGNORECASE)


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_of_derived_images_does_not_say_that_they_show_no_patient(kind: str) -> None:
    derived = (
        augment_page(replace(AUGMENT, derived=True))
        if kind == "augment"
        else evaluate_page(replace(EVALUATE, derived=True))
    )
    assert "No synthetic image was taken of a patient." in PAGES[kind]
    assert "taken of a patient" not in derived
    assert "may resemble that patient" in derived


CHROMIUM = [
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=2000",
]


@pytest.mark.external("chromium")
@pytest.mark.slow
@pytest.mark.parametrize("kind", PAGES)
def test_a_browser_shows_it_whole(kind: str, tmp_path: Path) -> None:
    """Chromium at 390 pixels: nothing logged, nothing wider than the screen, every picture loaded and not blank."""
    (tmp_path / "page.html").write_text(PAGES[kind], encoding="utf-8")
    (tmp_path / "probe.html").write_text(
        """<!doctype html><body><iframe id=f src=page.html style="width:390px;height:800px;border:0"></iframe>
        <pre id=out></pre><script>f.onload = () => { const d = f.contentDocument, r = d.documentElement;
        const bad = [...d.images].filter(i => !(i.complete && i.naturalWidth > 0)).length;
        out.textContent = `wide=${r.scrollWidth} images=${d.images.length} bad=${bad} requests=` +
          f.contentWindow.performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length;
        };</script>""",
        encoding="utf-8",
    )
    profile = [f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files"]
    dump = subprocess.run(
        [*CHROMIUM, *profile, "--dump-dom", "--enable-logging=stderr", f"file://{tmp_path / 'probe.html'}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r"wide=(\d+) images=(\d+) bad=(\d+) requests=(\d+)", dump.stdout.split("<script>")[0])
    assert found is not None
    assert int(found[1]) <= 390
    assert int(found[2]) == PAGES[kind].count("<img ")
    assert (found[3], found[4]) == ("0", "0")
    assert "CONSOLE" not in dump.stderr
    shot = tmp_path / "shot.png"
    subprocess.run(
        [*CHROMIUM, *profile, "--window-size=1000,1400", f"--screenshot={shot}", f"file://{tmp_path / 'page.html'}"],
        capture_output=True,
        timeout=120,
        check=True,
    )
    picture = np.asarray(Image.open(shot).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
