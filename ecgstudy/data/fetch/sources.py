"""Where the public cohorts are published, and which of their files the study reads."""

from dataclasses import dataclass

PHYSIONET = "https://physionet.org/files"
MIRROR_VARIABLE = "ECGSTUDY_MIRROR"
"""Environment variable: address of a copy of PhysioNet's ``files`` folder, such as a hospital's mirror
or the publisher's own bucket, https://physionet-open.s3.amazonaws.com, which is faster for PTB-XL."""


@dataclass(frozen=True)
class Source:
    """Where a cohort is published and which of its files the study reads.

    Attributes
    ----------
    folder : str
        Name of the cohort's folder below the data folder.
    project, version : str
        PhysioNet's name and version; both are part of the address.
    index_sha256 : str or None
        SHA-256 of the publisher's SHA256SUMS.txt; None where no copy was at hand to compute it from.
    needed : tuple of str
        Patterns of the files that the study reads. Web pages, pictures and LICENSE.txt are left out (LUDB's
        licence file does not match LUDB's own SHA256SUMS.txt); the data cards state the licences.
    optional : tuple of str
        Patterns of files that only a full download brings.
    min_files : int
        Number of needed files that the version is known to have, so that a list cut short is noticed.
    """

    folder: str
    project: str
    version: str
    index_sha256: str | None
    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()
    min_files: int = 1


SOURCES = {
    "ecgid": Source(
        folder="ecgiddb",
        project="ecgiddb",
        version="1.0.0",
        index_sha256="c73c46a718cd3741f96b085fcfe2d123a16817dc5d73b72d27daa4c1505b8602",
        needed=("Person_*/*", "RECORDS", "README", "ANNOTATORS"),
        min_files=933,
    ),
    "ludb": Source(
        folder="ludb",
        project="ludb",
        version="1.0.1",
        index_sha256="cccef1f3529519db8f26a333c97a6872a7d0e3e5c64a1448b76b161fd87fb75f",
        needed=("data/*", "ludb.csv", "RECORDS", "README", "ANNOTATORS"),
        min_files=2804,
    ),
    "mitdb": Source(
        folder="mitdb",
        project="mitdb",
        version="1.0.0",
        index_sha256="b61158a96d5f2ca80edfb354a9a66a6324836c390a84e1966dcee2b907d6be43",
        needed=("[12]??.hea", "[12]??.dat", "[12]??.atr", "RECORDS", "ANNOTATORS"),
        min_files=146,
    ),
    "ptbxl": Source(
        folder="ptbxl",
        project="ptb-xl",
        version="1.0.3",
        index_sha256=None,
        needed=("ptbxl_database.csv", "scp_statements.csv", "RECORDS", "records100/*"),
        optional=("records500/*",),
        min_files=2 + 2 * 21_799,  # two tables, header and samples of each record
    ),
}
