"""Terms of DICOM that may be copied from a header into a synthetic file: closed lists, so no patient's text slips."""

from __future__ import annotations

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

# Preambles that may stand before "DICM": none, or a TIFF header (PS3.10 7.1). A program header there is CVE-2019-11687.
PREAMBLES = (b"\0\0\0\0", b"II*\0", b"MM\0*")

NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
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
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"


def known(value: Any, terms: frozenset[str]) -> str | None:
    """The value as a term of a closed list, or None."""
    text = str(value or "").strip().upper()
    return text if text in terms else None
