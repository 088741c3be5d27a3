"""Any `dataset.json` is a manifest that makes sense, or refused in one sentence that names the file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from datasets.records.manifest import MANIFEST_FILE, DatasetError, Manifest, ShardInfo

GOOD = Manifest(
    name="toy",
    split="train",
    shards=(ShardInfo("toy-00000-of-00001.tfrecord", 2, 400, "0" * 64),),
    classes=("up", "down"),
    image_format="PNG",
    channels=1,
    num_frames=4,
    height=12,
    width=12,
    made_by={"command": "test"},
)
values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8),
    lambda parts: some.lists(parts, max_size=3) | some.dictionaries(some.text(max_size=8), parts, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dataset")


@pytest.fixture(scope="module")
def good(folder):
    """The values of a manifest that is read as it was written."""
    GOOD.write(folder)
    assert Manifest.read(folder) == GOOD
    return json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))


def read_or_refused(folder, content: bytes) -> None:
    (folder / MANIFEST_FILE).write_bytes(content)
    try:
        manifest = Manifest.read(folder)
    except DatasetError as error:
        assert MANIFEST_FILE in str(error) and str(error).count("\n") == 0
    else:
        assert manifest.num_clips >= 0 and all("/" not in shard.file for shard in manifest.shards)


@given(some.data())
def test_a_manifest_with_any_value_at_any_place_is_read_or_refused(good, folder, data):
    changed = json.loads(json.dumps(good))
    holder = changed if data.draw(some.booleans()) else changed["shards"][0]
    key = data.draw(some.sampled_from(sorted(holder)))
    if data.draw(some.booleans()):
        holder[key] = data.draw(values)
    else:
        del holder[key]
    read_or_refused(folder, json.dumps(changed).encode())


@given(some.integers(0, 10_000), some.binary(max_size=4))
def test_a_manifest_with_any_bytes_changed_or_cut_is_read_or_refused(good, folder, place, replacing):
    content = json.dumps(good).encode()
    place %= len(content)
    read_or_refused(
        folder, content[:place] + replacing + content[place + len(replacing) :] if replacing else content[:place]
    )
