"""Makers of hostile inputs. Each writes one source into a folder and says what is in it, so that losses can be checked."""

import gzip
import io
import json
import os
import random
import socket
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

BLOCK = 512
NAME, SIZE, CHECKSUM, TYPE, MAGIC = slice(0, 100), slice(124, 136), slice(148, 156), 156, slice(257, 265)
TEXT = "a plain photograph of the harbor"


@dataclass
class Hostile:
    """One hostile source.

    Attributes:
        what: its kind, for messages.
        kind: of the source: "folder" or "webdataset".
        samples: number of images in it, which must be kept or counted.
        texts: captions that it really has; None where damage may have changed them.
        settings: further settings of the source.
        is_exact: whether every image is one sample, kept or dropped; otherwise damage may hide some behind one counted loss.
    """

    what: str
    kind: str = "folder"
    samples: int = 1
    texts: set[str] | None = field(default_factory=lambda: {TEXT})
    settings: dict[str, Any] = field(default_factory=dict)
    is_exact: bool = True


def picture(rng: random.Random, side: int = 16, mode: str = "RGB") -> Image.Image:
    """Return an image that no other has."""
    values = np.frombuffer(rng.randbytes(4 * 4 * 3), np.uint8).reshape(4, 4, 3)
    return Image.fromarray(np.kron(values, np.ones((side // 4, side // 4, 1), np.uint8))).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# --- tars ---


def members(rng: random.Random, count: int) -> list[tuple[str, bytes]]:
    """Return image, caption and metadata of some samples, as img2dataset orders them."""
    found = []
    for _ in range(count):
        key = f"h{rng.getrandbits(48):012x}"
        metadata = json.dumps({"caption": TEXT, "key": key}).encode()
        found += [(f"{key}.png", encoded(picture(rng))), (f"{key}.txt", TEXT.encode()), (f"{key}.json", metadata)]
    return found


def tar_of(content: list[tuple[str, bytes]], rng: random.Random) -> bytes:
    """Return a tar in one of three dialects, some names long enough for extension headers."""
    buffer = io.BytesIO()
    prefix = rng.choice(["", "part/", "d" * 90 + "/" + "e" * 90 + "/", "x" * 150, "ü/"])
    dialect = rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    if dialect == tarfile.USTAR_FORMAT and len(prefix) > 100:
        prefix = "part/"
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as archive:
        for name, data in content:
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            if dialect == tarfile.PAX_FORMAT and rng.random() < 0.3:
                info.pax_headers = {"comment": "ü" * rng.randint(1, 900)}
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def header_positions(tar: bytes) -> list[int]:
    """Return where headers start."""
    return [at for at in range(0, len(tar), BLOCK) if tar[at + 257 : at + 262] == b"ustar"]


def with_checksum(block: bytearray) -> bytearray:
    block[CHECKSUM] = b" " * 8
    block[CHECKSUM] = b"%06o\0 " % sum(block)
    return block


def mutated_header(tar: bytes, rng: random.Random) -> bytes:
    """Return a tar with one changed header, most often with a right checksum."""
    at = rng.choice(header_positions(tar))
    block = bytearray(tar[at : at + BLOCK])
    change = rng.randrange(7)
    if change == 0:
        values = (
            b"-0000000001\0",
            b"\xff" * 12,
            b"\x80" + b"\xff" * 11,
            b"77777777777\0",
            b"9" * 12,
            b"\0" * 12,
            b"00000000001\0",
        )
        block[SIZE] = rng.choice(values)
    elif change == 1:
        block[TYPE] = rng.choice(b"0123456789SLKxgXDMNVA\0\xff")
    elif change == 2:
        names = (
            b"../../etc/passwd",
            b"/etc/passwd",
            b"\xff\xfe.png",
            b"",
            b"..\\x.png",
            b".hidden.png",
            b"a\nb.png",
            b"CON.png",
        )
        block[NAME] = rng.choice(names).ljust(100, b"\0")
    elif change == 3:
        block[MAGIC] = rng.choice([b"ustar  \0", b"\0" * 8, b"ustar\x0000", b"gnu\0\0\0\0\0"])
    else:
        for _ in range(rng.randint(1, 8)):
            block[rng.randrange(BLOCK)] = rng.randrange(256)
    block = with_checksum(block) if rng.random() < 0.8 else block
    return tar[:at] + bytes(block) + tar[at + BLOCK :]


def extension_headers(rng: random.Random) -> bytes:
    """Return extension headers in front of a member: chains, wrong lengths, contradictions, digits without end."""

    def header(kind: bytes, content: bytes, size: bytes | None = None) -> bytes:
        block = bytearray(BLOCK)
        block[:9], block[100:108], block[SIZE] = b"extension", b"0000644\0", size or b"%011o\0" % len(content)
        block[TYPE : TYPE + 1], block[MAGIC] = kind, b"ustar\x0000"
        return bytes(with_checksum(block)) + content + bytes(-len(content) % BLOCK)

    kind = rng.choice([b"x", b"g", b"L", b"K"])
    records = (b"20 path=../../x.png\n", b"9 size=-1\n", b"99999 path=a\n", b"0 a=b\n", b"5 a\n", b"x", b"7 path=",
               b"1" * 5000 + b" a=b\n", b"14 size=9999\n", b"22 GNU.sparse.major=1\n", b"12 path=\xff\xfe\n")  # fmt: skip
    if rng.random() < 0.4:
        return header(kind, rng.choice(records)) * rng.choice([1, 15, 16, 17, 2000])
    return header(
        kind, b"a" * rng.choice([0, 1, 511, 512, 2 << 20]), rng.choice([None, b"\x80" + b"\x7f" * 11, b"77777777777\0"])
    )


def hostile_tar(folder: Path, rng: random.Random) -> Hostile:
    """Write one damaged or strange archive."""
    tar = tar_of(members(rng, 3), rng)
    made = Hostile("", "webdataset", 3, {TEXT}, is_exact=False)
    cut = rng.randrange(len(tar))
    position = rng.choice(header_positions(tar))
    changes: dict[str, Callable[[], bytes]] = {
        "header": lambda: mutated_header(tar, rng),
        "two headers": lambda: mutated_header(mutated_header(tar, rng), rng),
        "cut off": lambda: tar[:cut],
        "extension headers": lambda: tar[:position] + extension_headers(rng) + tar[position:],
        "zeros within": lambda: tar[:position] + bytes(BLOCK * rng.randint(1, 3)) + tar[position:],
        "two tars in one": lambda: tar + tar_of(members(rng, 3), rng),
        "bytes after the end": lambda: tar + rng.randbytes(700),
        "gzip": lambda: gzip.compress(tar),
        "gzip cut off": lambda: gzip.compress(tar)[: rng.randrange(20, 400)],
        "gzip changed": lambda: changed(gzip.compress(tar), rng),
        "gzip of zeros": lambda: gzip.compress(tar[:position] + bytes(100_000_000)),
        "two gzips": lambda: gzip.compress(tar[:position]) + gzip.compress(tar[position:]),
        "other format": lambda: rng.choice([b"BZh9", b"\xfd7zXZ\0", b"PK\3\4", b"\x28\xb5\x2f\xfd"]) + tar,
        "noise": lambda: rng.randbytes(3000),
        "empty": lambda: b"",
    }
    made.what = rng.choice(list(changes))
    content = changes[made.what]()
    made.samples = 6 if made.what == "two tars in one" else 3
    if made.what in ("gzip", "two gzips"):
        made.is_exact = True
    (folder / "hostile.tar").write_bytes(content)
    made.what = f"tar: {made.what}"
    return made


def hostile_members(folder: Path, rng: random.Random) -> Hostile:
    """Write a whole archive whose members are hostile."""
    image = encoded(picture(rng))
    deep = b"[" * 100_000
    values = (None, 3, 1.5, True, [TEXT], {"a": TEXT}, "", "\ud800", " ", "a\0b c d", TEXT)
    caption = rng.choice(values)
    cases: dict[str, list[tuple[str, bytes]]] = {
        f"caption {caption!r:.20} in JSON": [("a.png", image), ("a.json", json.dumps({"caption": caption}).encode())],
        "deep JSON": [("a.png", image), ("a.json", deep)],
        "JSON that is no object": [("a.png", image), ("a.json", rng.choice([b"[]", b"3", b"null", b"NaN", b'"x"', b"\xff"]))],
        "long number": [("a.png", image), ("a.json", b'{"caption": ' + b"9" * 9000 + b"}")],
        "no image": [("a.txt", TEXT.encode()), ("a.json", b"{}")],
        "no caption": [("a.png", image)],
        "two images of one key": [("a.png", image), ("a.jpg", encoded(picture(rng), "JPEG")), ("a.txt", TEXT.encode())],
        "key twice": [("a.png", image), ("a.txt", TEXT.encode()), ("a.png", encoded(picture(rng))), ("a.txt", TEXT.encode())],
    }
    what = rng.choice(list(cases))
    with tarfile.open(folder / "hostile.tar", "w") as archive:
        for name, data in cases[what]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    number = {"two images of one key": 2, "key twice": 2, "no image": 1}.get(what, 1)
    texts = {TEXT} | ({" ".join(caption.replace("\0", " ").split())} if isinstance(caption, str) else set())
    return Hostile(f"member: {what}", "webdataset", number, texts)


# --- images ---


def changed(content: bytes, rng: random.Random) -> bytes:
    """Return bytes of which some are others."""
    result = bytearray(content)
    for _ in range(rng.randint(1, 12)):
        result[rng.randrange(len(result))] = rng.randrange(256)
    return bytes(result)


def png_of_size(width: int, height: int, depth: int = 8, color: int = 2) -> bytes:
    """Return a PNG that declares any size, with a right checksum and few pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def hostile_image(folder: Path, rng: random.Random) -> Hostile:
    """Write one image that is damaged, strange, or none."""
    kind = rng.choice(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
    modes = {"PNG": ["RGB", "L", "LA", "P", "1", "RGBA", "I;16"], "TIFF": ["RGB", "CMYK", "LAB", "F", "I", "1", "I;16"],
             "JPEG": ["RGB", "L", "CMYK"], "GIF": ["L", "P"], "BMP": ["RGB", "L", "1"], "WEBP": ["RGB", "RGBA"]}  # fmt: skip
    mode = rng.choice(modes[kind])
    image = picture(rng)
    if mode == "LAB":
        image = Image.fromarray(np.asarray(image)).convert("RGB")
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(picture(rng, mode="L")).astype(np.uint16) * rng.choice([1, 4, 16, 257]))
    else:
        image = image.convert(mode)
    whole = encoded(image, kind)
    sides = (0, 1, 16, 65535, 1_000_000, 2**31 - 1, 2**32 - 1)
    text = PngImagePlugin.PngInfo()
    text.add_text("x", "y" * 1_200_000, zip=True)
    cases: dict[str, Callable[[], bytes]] = {
        f"{kind} {mode}": lambda: whole,
        f"{kind} {mode} cut off": lambda: whole[: rng.randrange(len(whole))],
        f"{kind} {mode} changed": lambda: changed(whole, rng),
        "declared size": lambda: png_of_size(
            rng.choice(sides), rng.choice(sides), rng.choice([1, 8, 16, 77]), rng.choice([0, 2, 3, 6])
        ),
        "profile": lambda: encoded(picture(rng), "PNG", icc_profile=rng.randbytes(rng.choice([0, 4, 128, 5000]))),
        "EXIF": lambda: encoded(picture(rng), "JPEG", exif=b"Exif\0\0" + rng.randbytes(200)),
        "long text": lambda: encoded(picture(rng), "PNG", pnginfo=text),
        "narrow": lambda: encoded(Image.new("RGB", (rng.choice([1, 17]), 3000), (rng.randrange(256), 9, 9))),
        "no image": lambda: rng.choice(
            [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"GIF89a", rng.randbytes(500), b"II*\0" + b"\xff" * 50]
        ),
    }
    what = rng.choice(list(cases))
    extension = rng.choice([kind.lower(), "jpg", "jfif", "PNG", "tif"])
    (folder / f"hostile.{extension}").write_bytes(cases[what]())
    (folder / "hostile.txt").write_text(TEXT)
    return Hostile(f"image: {what}")


# --- captions ---


def hostile_caption(folder: Path, rng: random.Random) -> Hostile:
    """Write an image with a text file that is no plain caption."""
    (folder / "hostile.png").write_bytes(encoded(picture(rng)))
    encoding = rng.choice(["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-16", "latin-1", "cp500", "utf-7"])
    invisible = "".join(rng.choices("\u200b\u200d\u2060\ufeff\u3164\u2800\u00ad\u180e\U000e0041", k=8))
    cases = {
        f"in {encoding}": ("ein Café am Hafen".encode(encoding), {"ein Café am Hafen", "ein Caf+AOk am Hafen"}),
        "invisible": (invisible.encode(), set()),
        "NUL": (b"a fine\0 boat", {"a fine boat"}),
        "controls": (bytes(rng.randrange(1, 32) for _ in range(30)), set()),
        "long": (b"very " * rng.choice([300, 1_000_000]), set()),
        "blank": (rng.choice([b"", b" \n\t", b"\xef\xbb\xbf", b"\xc2\xa0" * 5, b"\0\0\0\0"]), set()),
        "noise": (rng.randbytes(40), None),
        "overlong UTF-8": (b"\xc0\xaf\xe0\x80\xaf a boat", set()),
        "surrogates": (b"a boat \xed\xa0\x80\xed\xb0\x80", set()),
    }
    what = rng.choice(list(cases))
    content, texts = cases[what]
    (folder / "hostile.txt").write_bytes(content)
    return Hostile(f"caption: {what}", texts=texts)


def hostile_table(folder: Path, rng: random.Random) -> Hostile:
    """Write three images with a table whose second row is hostile, or a file that is no table."""
    names = [f"h{number}.png" for number in range(3)]
    for name in names:
        (folder / name).write_bytes(encoded(picture(rng)))
    value = rng.choice([None, 3, -1.5, True, [TEXT, TEXT], {"a": TEXT}, "", [], "\ud800", "\u200b\u2060", "NaN\0"])
    rows = [{"file": name, "caption": TEXT} for name in names]
    rows[1]["caption"] = value  # type: ignore[assignment]
    if rng.random() < 0.3:
        rows[1]["file"] = rng.choice([None, 3, "", "../../x.png", "/etc/passwd", "h0.png", "gone.png", "h1.png\0", ["h1.png"]])  # type: ignore[assignment]
    lines = [json.dumps(row) for row in rows]
    csv = [f"{row['file']},{TEXT}" for row in rows]
    csv[1] = rng.choice(
        ["h1.png", "h1.png,a,b,c,d", f'h1.png,"{TEXT}', '"', ",", "h1.png,\0", f"h1.png,{'x' * 200_000}", "\r\r,"]
    )
    broken = rng.choice(["{", "[" * 100_000, "9" * 9000, "NaN", '{"file": "h1.png"', "\ufeff", "[]", "null", '"h1.png"'])
    cases: dict[str, tuple[str, bytes]] = {
        f"JSON lines with {value!r:.20}": ("captions.jsonl", "\n".join(lines).encode()),
        "JSON lines with a broken line": ("captions.jsonl", "\n".join([lines[0], broken, lines[2]]).encode()),
        "JSON": ("captions.json", json.dumps(rows).encode()),
        "broken JSON": ("captions.json", broken.encode()),
        "CSV": ("captions.csv", "\n".join(["file,caption", *csv]).encode("utf-8", "surrogatepass")),
        "CSV without a header": ("captions.csv", "\n".join(csv).encode()),
        "UTF-16": (rng.choice(["captions.csv", "captions.jsonl"]), "\n".join(lines).encode("utf-16")),
        "TSV": ("captions.tsv", ("file\tcaption\n" + "\n".join(row.replace(",", "\t", 1) for row in csv)).encode()),
        "noise": (rng.choice(["captions.csv", "captions.json", "captions.jsonl", "metadata.csv"]), rng.randbytes(600)),
        "empty": (rng.choice(["captions.csv", "captions.json", "captions.jsonl"]), b""),
    }
    what = rng.choice(list(cases))
    name, content = cases[what]
    (folder / name).write_bytes(content)
    texts = {TEXT, "a", "x" * 200_000} | ({" ".join(value.replace("\0", " ").split())} if isinstance(value, str) else set())
    return Hostile(
        f"table: {what}", samples=3, texts=None if what == "noise" or "header" in what or name.endswith("sv") else texts
    )


# --- names and links ---


def hostile_name(folder: Path, rng: random.Random) -> Hostile:
    """Write an image with a name that is hard to store or to print."""
    stems = [b"caf\xe9", b"a\nb", b"x" * 240, b"\xff\xfe", b"a b", b"\x1b[31mred", "ünïcödé".encode(), b"a\\b", b"C:x",
             b"-rf", b"%s{0}", b"$(id)", "\u202egnp".encode(), "é".encode(), b"CON", b"a.b.c"]  # fmt: skip
    stem = rng.choice(stems)
    place = os.fsencode(folder)
    if rng.random() < 0.3:
        place += b"/" + rng.choice([b"caf\xe9", b"a\nb", b"d" * 200, "日本".encode()])
        os.makedirs(place, exist_ok=True)  # noqa: PTH103  names of bytes
    for extension, content in ((b".png", encoded(picture(rng))), (b".txt", TEXT.encode())):
        Path(os.fsdecode(place + b"/" + stem + extension)).write_bytes(content)
    return Hostile(f"name: {stem!r}"[:60])


def hostile_link(folder: Path, rng: random.Random) -> Hostile:
    """Write links that loop, lead out or nowhere, and files that are none; no sample may come from outside."""
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret.png").write_bytes(encoded(picture(rng)))
    (outside / "secret.txt").write_text("a secret that must stay outside")
    follow = rng.random() < 0.3
    made = Hostile("", samples=0, settings={"follow_links": follow})
    what = rng.choice(
        ["loop", "two loops", "self", "nowhere", "folder outside", "image outside", "caption outside", "pipe", "socket", "deep"]
    )
    if what == "loop":
        (folder / "loop").symlink_to(".")
    elif what == "two loops":
        (folder / "a").mkdir()
        (folder / "a" / "up").symlink_to("..")
        (folder / "b").symlink_to("a")
    elif what == "self":
        (folder / "self.png").symlink_to("self.png")
        made.samples = 1
    elif what == "nowhere":
        (folder / "gone.png").symlink_to("nowhere.png")
        made.samples = 1
    elif what == "folder outside":
        (folder / "out").symlink_to(outside)
        made.samples = int(follow)
    elif what in ("image outside", "caption outside"):
        (folder / "x.png").write_bytes(encoded(picture(rng)))
        if what == "image outside":
            (folder / "y.png").symlink_to(outside / "secret.png")
            made.samples = 2
        else:
            (folder / "x.txt").symlink_to(outside / "secret.txt")
    elif what == "pipe":
        os.mkfifo(folder / "pipe.png")
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            here = Path.cwd()
            os.chdir(folder)  # the path of a socket is short
            one.bind("s.png")
            os.chdir(here)
    else:
        deep = folder.joinpath(*["d"] * 200)
        deep.mkdir(parents=True)
        (deep / "x.png").write_bytes(encoded(picture(rng)))
        (deep / "x.txt").write_text(TEXT)
        made.samples = 1
    if what == "caption outside":
        made.samples = 1
    made.what = f"link: {what}{', followed' if follow else ''}"
    made.texts = {TEXT} | ({"a secret that must stay outside"} if follow else set())
    return made


MAKERS = (hostile_tar, hostile_tar, hostile_members, hostile_image, hostile_image, hostile_caption, hostile_table,
          hostile_table, hostile_name, hostile_link)  # fmt: skip


def add_good(folder: Path, kind: str) -> Iterator[str]:
    """Write samples that nothing may harm, and yield their captions: enough for all three splits."""
    rng = random.Random("good")
    place = folder / ("00000-good" if kind == "folder" else "")
    place.mkdir(exist_ok=True)
    content = []
    for number in range(12):
        text = f"good sample number {number}"
        content += [(f"good{number:02d}.png", encoded(picture(rng))), (f"good{number:02d}.txt", text.encode())]
        yield text
    if kind == "folder":
        for name, data in content:
            (place / name).write_bytes(data)
    else:
        with tarfile.open(place / "00000-good.tar", "w") as archive:
            for name, data in content:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
