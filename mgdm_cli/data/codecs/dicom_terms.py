"""Terms of DICOM that may be copied from a header into a synthetic file: closed lists, so no patient's text slips."""

from __future__ import annotations

import re
from typing import Any

# PS3.3 C.7.3.1.1.1, the imaging modalities
_MODALITIES = """
    BI BMD CR CT DG DX ES GM IO IVOCT IVUS LS MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OT PA PT PX RF
    RG SM TG US XA XC
"""
MODALITIES = frozenset(_MODALITIES.split())
# PS3.16 Annex L, BodyPartExamined: parts that lie in the middle of the body have no side
_UNPAIRED = """
    ABDOMEN ABDOMENPELVIS BLADDER BRAIN CHEST CHESTABDOMEN CHESTABDPELVIS CSPINE CTSPINE ESOPHAGUS HEAD
    HEADNECK HEART LIVER LSPINE LSSPINE MEDIASTINUM NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV PANCREAS PELVIS
    PROSTATE SACRUM SKULL SPINE
    SPLEEN STERNUM STOMACH TLSPINE TSPINE TSSPINE UTERUS WHOLEBODY
"""
_PAIRED = """
    ANKLE ARM BREAST CLAVICLE EAR ELBOW EXTREMITY EYE FEMUR FINGER FOOT HAND HIP HUMERUS KIDNEY KNEE LEG LUNG
    ORBIT OVARY RADIUS RIB SCAPULA SHOULDER THIGH THUMB TIBIA TOE ULNA WRIST ZYGOMA
"""
UNPAIRED, PAIRED = frozenset(_UNPAIRED.split()), frozenset(_PAIRED.split())
BODY_PARTS = UNPAIRED | PAIRED
# BodyPartExamined -> SNOMED CT code of the region (PS3.16 Annex L, Table L-1), for the parts that are radiographed
REGIONS = {
    part: (code, "SCT", meaning)
    for part, code, meaning in (
        ("ABDOMEN", "818981001", "Abdomen"),
        ("ANKLE", "70258002", "Ankle joint"),
        ("BREAST", "76752008", "Breast"),
        ("CHEST", "816094009", "Chest"),
        ("CLAVICLE", "51299004", "Clavicle"),
        ("CSPINE", "122494005", "Cervical spine"),
        ("ELBOW", "16953009", "Elbow joint"),
        ("EXTREMITY", "66019005", "Extremity"),
        ("FEMUR", "71341001", "Femur"),
        ("FINGER", "7569003", "Finger"),
        ("FOOT", "56459004", "Foot"),
        ("HAND", "85562004", "Hand"),
        ("HEAD", "69536005", "Head"),
        ("HIP", "24136001", "Hip joint"),
        ("HUMERUS", "85050009", "Humerus"),
        ("KNEE", "72696002", "Knee"),
        ("LSPINE", "122496007", "Lumbar spine"),
        ("NECK", "45048000", "Neck"),
        ("PELVIS", "816092008", "Pelvis"),
        ("RIB", "113197003", "Rib"),
        ("SCAPULA", "79601000", "Scapula"),
        ("SHOULDER", "16982005", "Shoulder"),
        ("SKULL", "89546000", "Skull"),
        ("SPINE", "421060004", "Spine"),
        ("TSPINE", "122495006", "Thoracic spine"),
        ("WRIST", "74670003", "Wrist joint"),
    )
}

# Preambles that may stand before "DICM": none, or a TIFF header (PS3.10 7.1). A program header there is CVE-2019-11687.
PREAMBLES = (b"\0\0\0\0", b"II*\0", b"MM\0*")

IMPLICIT = "1.2.840.10008.1.2"
LITTLE = frozenset([IMPLICIT, "1.2.840.10008.1.2.1"])
BIG = "1.2.840.10008.1.2.2"
NATIVE = LITTLE | {BIG}
DEFLATED = "1.2.840.10008.1.2.1.99"
PACKED = {
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "HTJ2K lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K lossless RPCL",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE",
}
SKIMMED = LITTLE | frozenset(PACKED)  # whose header is little endian and not packed (PS3.5 A.4)
JPEG_LOSSLESS = frozenset(["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"])  # read by jpeg_lossless
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"

# Storage classes (PS3.4 B.5) that are written in kind, and those whose frames belong to the same kind: enhanced and
# legacy converted multi-frame objects, DX for processing. All others are written as Secondary Capture.
_IMAGE = "1.2.840.10008.5.1.4.1.1"
SECONDARY_CAPTURE = f"{_IMAGE}.7"
STORAGE = {"CR": f"{_IMAGE}.1", "DX": f"{_IMAGE}.1.1", "CT": f"{_IMAGE}.2", "MR": f"{_IMAGE}.4"}
_KIN = {"DX": (".1.1.1",), "CT": (".2.1", ".2.2"), "MR": (".4.1", ".4.4")}
KINDS = {uid: kind for kind, uid in STORAGE.items()} | {_IMAGE + u: kind for kind, uids in _KIN.items() for u in uids}


_DIRECTION = re.compile(r"(?!.*(AP|PA|RL|LR|HF|FH))[APRLHF]{1,3}")  # PS3.3 C.7.6.1.1.1, bipeds


def directions(value: Any) -> tuple[str, str] | None:
    """PatientOrientation as two terms such as ("L", "F"), or None where it is not that."""
    terms = [] if value is None or isinstance(value, str) else [str(term).strip() for term in value]
    return (terms[0], terms[1]) if len(terms) == 2 and all(_DIRECTION.fullmatch(term) for term in terms) else None


def known(value: Any, terms: frozenset[str]) -> str | None:
    """The value as a term of a closed list, or None."""
    text = str(value or "").strip().upper()
    return text if text in terms else None
