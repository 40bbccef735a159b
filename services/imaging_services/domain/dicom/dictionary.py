"""Value Representations by the data dictionary (PS3.6), for Implicit VR and for public elements sent as UN."""

from functools import lru_cache

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.datadict import mask_match


@lru_cache(maxsize=16384)
def implicit_vr(tag: int) -> str:
    """The VR of a tag; ambiguous ones keep the dictionary's form (``US or SS``), unknown ones are ``UN``.

    Group lengths are UL and private creators LO (PS3.5 sections 7.2 and 7.8.1); other private elements are UN.
    """
    entry = DicomDictionary.get(tag)
    if entry is not None:
        return entry[0]
    if tag & 0xFFFF == 0:
        return "UL"
    if tag >> 16 & 1:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    mask = mask_match(tag)
    return RepeatersDictionary[mask][0] if mask else "UN"


@lru_cache(maxsize=1024)
def definite_vr(vr: str, *, signed: bool) -> str:
    """One VR of an ambiguous form: ``US or SS`` by Pixel Representation (PS3.3 C.7.6.3.1), else the widest."""
    if " " not in vr:
        return vr
    if vr == "US or SS":
        return "SS" if signed else "US"
    return "OW" if "OW" in vr else vr.split(" or ")[0]
