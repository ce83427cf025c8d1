"""The text that says inside a file that it is synthetic, and how to find it again."""

from __future__ import annotations

from mgdm_cli.data.image import Mark

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
NOTICE = "SYNTHETIC DATA - NOT FOR CLINICAL USE"
ORIGIN = "derived from a real image and may resemble that patient"
_TRACES = (b"newscodes/digitalsourcetype/trainedAlgorithmicMedia", b"newscodes/digitalsourcetype/compositeWithTrained")


def facts(mark: Mark) -> dict[str, str]:
    """The mark as text, in a fixed order: what is needed to trace the file, nothing of the machine that wrote it."""
    told = {
        "Synthetic": "YES",
        "Software": f"mgdm {mark.version}",
        "Id": mark.id,
        "Label": mark.label,
        "Run": mark.run,
        "Index": str(mark.index),
        "Model": f"sha256:{mark.model_sha256}",
        "Comment": NOTICE,
    }
    return told | {"Origin": ORIGIN} if mark.derived else told


def sidecar(mark: Mark) -> dict[str, str | list[str]]:
    """What stands in the JSON file beside a NIfTI: BIDS names where there are some (BIDS 1.9, Hardware and Sequence).

    A NIfTI header loses its description in most tools; the file beside it is what they carry on."""
    told: dict[str, str | list[str]] = {
        "SyntheticData": "YES",
        "DigitalSourceType": SOURCE_TYPE,
        "ImageType": ["DERIVED", "PRIMARY", "OTHER", "SYNTHETIC"],
        "Manufacturer": "mgdm",
        "ManufacturersModelName": "mgdm",
        "SoftwareVersions": mark.version,
    }
    return told | facts(mark)


def xmp(mark: Mark) -> bytes:
    """An XMP packet with DigitalSourceType trainedAlgorithmicMedia (IPTC Photo Metadata Standard; needs no key)."""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        f' Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}" xmp:CreatorTool="mgdm {mark.version}"/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()


def traced(data: bytes) -> bool:
    """Whether the bytes of a PNG, JPEG or TIFF say that the picture was generated."""
    return b"Synthetic\0YES" in data or b"Synthetic=YES" in data or any(trace in data for trace in _TRACES)
