"""The gates that a candidate must pass, each with the reason it is rejected for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mgdm_cli.metrics.copies import Calibration, CopyScorer, percentile
from mgdm_cli.nets.classifier import Classifier

from .classifying import logits_of

FLAT = 0.02  # standard deviation in [-1, 1] below which a picture is blank
CLIPPED = 0.98  # share of pixels at either end of the range above which it is out of range
TWIN = 0.97  # correlation of fine detail above which two pictures of one lot are the same


@dataclass(frozen=True)
class Verdict:
    """Of one candidate: `reason` None is accepted. `detail` is for people."""

    reason: str | None
    detail: str
    kept: bool
    copy_score: float | None
    copy_percentile: float | None


class Gates:
    """The gates of one run: a judge that the guide never met, the copy score, and the pictures' own range.

    `label`: candidates that lost their class are rejected; `blank`: those that show nothing, or the same as another of their lot.
    """

    def __init__(
        self,
        judge: Classifier,
        classes: Sequence[str],
        *,
        label: bool,
        blank: bool,
        scorer: CopyScorer | None,
        calibration: Calibration | None,
    ) -> None:
        self.judge, self.classes, self.label, self.blank = judge, tuple(classes), label, blank
        self.scorer, self.calibration = scorer, calibration

    def check(
        self, x0: Tensor, class_index: int, earlier: list[Tensor], hopeless: Collection[int] = ()
    ) -> list[Verdict]:
        """Verdicts on x0 (B, C, H, W) in order; details of accepted ones are added to `earlier` (those of the same lot), for `blank`.

        Rows in `hopeless` had lost their label before the disturbance, and were not disturbed.
        """
        found = logits_of(self.judge, x0).argmax(-1).tolist()
        scores = self.scorer.score(x0.cpu().numpy().astype(np.float32)).score if self.scorer is not None else None
        shares = (
            percentile(self.calibration.scores, scores) if scores is not None and self.calibration is not None else None
        )
        fine = detail(x0) if self.blank else None
        verdicts = []
        for row in range(len(x0)):
            kept = found[row] == class_index
            if row in hopeless:
                kept = False
            reason, why = self._reason(x0[row], kept, found[row], scores[row : row + 1] if scores is not None else None)
            if fine is not None and reason is None and any(float(fine[row] @ other) > TWIN for other in earlier):
                reason, why = "twin", "the same picture as another of its lot"
            if fine is not None and reason is None:
                earlier.append(fine[row])
            score = None if scores is None else round(float(scores[row]), 6)
            share = None if shares is None else round(float(shares[row]), 6)
            verdicts.append(Verdict(reason, why, kept, score, share))
        return verdicts

    def _reason(self, x0: Tensor, kept: bool, found: int, score: NDArray[np.float64] | None) -> tuple[str | None, str]:
        if self.blank and float(x0.std()) < FLAT:
            return "blank", "no contrast"
        ends = float((x0.abs() > 0.999).float().mean()) if self.blank else 0.0
        if ends > CLIPPED:
            return "out-of-range", f"{ends:.0%} of the pixels lie at the ends of the range"
        if self.label and not kept:
            return "label-lost", f"the judge sees {self.classes[found]}"
        if score is not None and self.calibration is not None and bool(self.calibration.threshold.flags(score)[0]):
            return "near-copy", "closer to a training image than a new image is"
        return None, ""


def detail(x0: Tensor) -> Tensor:
    """(B, D) unit vectors of what a 9-pixel mean leaves over, on a grid of at most 32 x 32: what tells two pictures apart."""
    small = F.adaptive_avg_pool2d(x0.float(), (min(x0.shape[-2], 32), min(x0.shape[-1], 32)))
    smooth = F.avg_pool2d(F.pad(small, (4, 4, 4, 4), mode="replicate"), 9, stride=1)
    return F.normalize((small - smooth).flatten(1), dim=1).cpu()
