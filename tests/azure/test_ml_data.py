"""azureml-sdk against the stand-in: data sets, read by its own engine from real storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.azure.mlclient import ClientError, MlClient

pytestmark = pytest.mark.azure


def test_a_data_set_has_versions_with_tags_and_content(ml: MlClient) -> None:
    found = ml.do(
        """
from azureml.core import Dataset
store = ws.get_default_datastore()
def upload(number):
    os.makedirs(f"rows{number}", exist_ok=True)
    open(f"rows{number}/rows.csv", "w").write(f"a,b\\n{number},2\\n")
    Dataset.File.upload_directory(f"rows{number}", (store, f"slipway/data/{number}"), show_progress=False)
    return Dataset.File.from_files((store, f"slipway/data/{number}/rows.csv"), validate=False)
one = upload(1).register(ws, "grades", tags={"sha256": "one"}, create_new_version=True)
two = upload(2).register(ws, "grades", tags={"sha256": "two"}, create_new_version=True)
same = upload(2).register(ws, "grades", create_new_version=True)
latest, first = Dataset.get_by_name(ws, "grades"), Dataset.get_by_name(ws, "grades", 1)
paths = first.download("fetched", overwrite=True)
first.add_tags({"seen": "yes"})
result = {"versions": [one.version, two.version, same.version, latest.version], "tags": [first.tags, latest.tags],
          "content": open(paths[0]).read(), "id": Dataset.get_by_id(ws, one.id).name,
          "again": Dataset.get_by_name(ws, "grades", 1).tags, "all": list(ws.datasets.keys())}
"""
    )
    assert found["versions"] == [1, 2, 2, 2]
    assert found["tags"] == [{"sha256": "one", "seen": "yes"}, {"sha256": "two"}]
    assert found["content"] == "a,b\n1,2\n"
    assert found["id"] == "grades"
    assert found["again"]["seen"] == "yes"


def test_what_the_service_refuses(ml: MlClient) -> None:
    with pytest.raises(ClientError, match="Cannot find dataset"):
        ml.do('Dataset.get_by_name(ws, "nothing")')
    with pytest.raises(ClientError, match="Cannot find dataset"):
        ml.do('Dataset.get_by_name(ws, "grades", 9)')
    with pytest.raises(ClientError, match="already a dataset registered"):
        ml.do('upload(3).register(ws, "grades")')
    # A path that is a version already, though not the latest, is no new one, nor one of another name.
    for name in ("grades", "marks"):
        with pytest.raises(ClientError, match="has been registered as grades:1"):
            ml.do(f'upload(1).register(ws, "{name}", create_new_version=True)')


def test_a_file_that_is_overwritten_in_the_datastore_is_new_data(ml: MlClient, root: Path) -> None:
    found = ml.do(
        f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(root)!r})
from scripts.platforms.azure.data import fetch, register_path, restore_data
from scripts.settings import Settings
settings = Settings(MODEL_NAME="wood")
blob = store.blob_service.get_blob_client(store.container_name, "mine/rows.csv")
made = []
for content in (b"a\\n1\\n", b"a\\n2\\n", b"a\\n2\\n"):
    blob.upload_blob(content, overwrite=True)
    made.append(register_path(ws, settings, "mine/rows.csv"))
other = register_path(ws, Settings(MODEL_NAME="wood2"), "mine/rows.csv")
read = [fetch(ws, m.name, m.version, Path("kept"))[0].read_text() for m in made]
file = Path("restored.csv")
restored = []
for version in ("1", "latest"):
    restore_data(ws, Settings(MODEL_NAME="wood", DATASET_VERSION=version), file, made[1].sha256)
    restored.append(file.read_text())
    file.unlink()
result = {{"made": [f"{{m.name}}:{{m.version}}" for m in [*made, other]], "read": read, "restored": restored}}
"""
    )
    assert found["made"] == ["wood-data:1", "wood-data:2", "wood-data:2", "wood-data:2"]
    assert found["read"] == ["a\n1\n", "a\n2\n", "a\n2\n"]
    # A pinned version goes before what was checked last.
    assert found["restored"] == ["a\n1\n", "a\n2\n"]
