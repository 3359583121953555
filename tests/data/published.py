"""Writes training sets as they are published, byte for byte in form, with a few rows each."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLUMNS = ("qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
QUESTION = "<|image_1|>\nRepresent the given image with the following question: {}\n"
CIRR = "<|image_1|>\nGiven an image, find a similar everyday image with the described changes: {}\n"
SOUGHT = "<|image_1|>\nRepresent the given image.\n"
COMPARED = "<|image_1|>\nRepresent the given image\n"
GROUNDED = '<|image_1|>\nSelect the portion of the image that isolates the object labeled as "{}"\n'
CROP = "<|image_1|>\nRepresent the given cropped image of the object"
WEBQA = "<|image_1|>\nFind a Wikipedia image that answers this question: {}?\n"
WEBQA_IMAGE = "<|image_1|>\nRepresent the given Wikipedia image with related text information: {}\n"
DIALOGUE = (
    "Represent the given dialogue about an image, which is used for image retrieval: "
    "Q:is this a child or adult\nA:adult\nQ:is it {}\n\n"
)


def encoded(shade: int, *, size: tuple[int, int] = (40, 30), kind: str = "JPEG") -> bytes:
    """A picture in one shade, as the bytes of a file."""
    mode, color = ("RGBA", (shade, shade, shade, 128)) if kind == "RGBA" else ("RGB", (shade,) * 3)
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, "PNG" if kind == "RGBA" else kind)
    return file.getvalue()


def put_image(root: Path, path: str, shade: int, **kwargs) -> str:
    """Write a picture below `root`; returns its path as a data set has it."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(encoded(shade, **kwargs))
    return path


def write_strings(file: Path, rows: list[tuple[str, ...]]) -> Path:
    """Parquet with the six columns of MMEB-train, all of them strings without nulls."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: [row[n] for row in rows] for n, name in enumerate(COLUMNS)}
    schema = pa.schema([pa.field(name, pa.string(), nullable=False) for name in COLUMNS])
    pq.write_table(pa.table(columns, schema=schema), file)
    return file


def write_table(file: Path, columns: dict[str, pa.Array], *, images: tuple[str, ...] = ()) -> Path:
    """Parquet as `datasets` writes it: which columns are pictures stands in the metadata."""
    file.parent.mkdir(parents=True, exist_ok=True)
    features = {name: {"_type": "Image"} for name in images}
    for name, column in columns.items():
        if name not in features:
            features[name] = _feature(column.type)
    table = pa.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, file)
    return file


def _feature(kind: pa.DataType) -> object:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": str(kind), "_type": "Value"}


def images(*contents: bytes | None) -> pa.Array:
    values = [None if c is None else {"bytes": c, "path": None} for c in contents]
    return pa.array(values, type=IMAGE)


def make_mmeb(root: Path) -> Path:
    for name, rows in mmeb_rows(root).items():
        folder = root / name
        write_strings(folder / "original-00000-of-00001.parquet", rows)
        other = [(row[0].replace("Represent", "Describe"), *row[1:]) for row in rows]
        write_strings(folder / "diverse_instruction-00000-of-00001.parquet", other)
        write_strings(folder / "train-00000-of-00001.parquet", rows[:1])  # stale
    return root


def mmeb_rows(root: Path) -> dict[str, list[tuple[str, ...]]]:
    """Rows of every shape that MMEB-train has; writes their pictures."""

    def image(name: str, shade: int, **kwargs) -> str:
        return put_image(root, f"images/{name}", shade, **kwargs)

    questions = ["What is the man by the bags awaiting?", "What is that?", "Who?", "Where?"]
    a_okvqa = [
        (
            QUESTION.format(question),
            image(f"A-OKVQA/Train/A-OKVQA_image_{n}.jpg", n),
            ("cab", "dog", "cab", "sea")[n],
            "",
            ("train", "cat", "bus", "sky")[n],
            "",
        )
        for n, question in enumerate(questions)
    ]
    visdial = [
        (
            DIALOGUE.format(n),
            "",
            COMPARED,
            image(f"VisDial/Train/VisDial_image_{n}.jpg", 20 + n),
            "",
            image(f"VisDial/Train/VisDial_image_{61616 + n}.jpg", 30 + n),
        )
        for n in range(4)
    ]
    webqa = [
        (
            WEBQA.format(n),
            "",
            WEBQA_IMAGE.format(f"Barber half {n}."),
            image(f"WebQA/Train/{n}.png", 40 + n, kind="RGBA"),
            "",
            "",
        )
        for n in range(4)
    ]
    cirr = [
        (
            CIRR.format(f"Many hamster {n}"),
            image(f"CIRR/Train/train-{n}-2-img1.jpg", 50 + n),
            SOUGHT,
            image(f"CIRR/Train/train-{n}-1-img0.jpg", 60 + n),
            "",
            "",
        )
        for n in range(4)
    ]
    mscoco = [
        (
            GROUNDED.format("hot dog"),
            image(f"MSCOCO/Train/{n}.jpg", 70 + n),
            CROP,
            image(f"MSCOCO/Train/{n}_object_hot dog.jpg", 80 + n, size=(20, 300)),
            "",
            "",
        )
        for n in range(4)
    ]
    captions = [
        (
            "<|image_1|>\nFind an image caption describing the given everyday image.\n",
            image(f"MSCOCO_i2t/Train/{n}.jpg", 90 + n),
            f"A skateboarder in mid air {n}.",
            "",
            "",
            "",
        )
        for n in range(4)
    ]
    return {
        "A-OKVQA": a_okvqa,
        "VisDial": visdial,
        "WebQA": webqa,
        "CIRR": cirr,
        "MSCOCO": mscoco,
        "MSCOCO_i2t": captions,
    }
