"""azureml-sdk against the stand-in: data sets, read by its own engine from real storage."""

from __future__ import annotations

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
    # Content that is a version already, though not the latest, is no new one.
    with pytest.raises(ClientError, match="has been registered as grades:1"):
        ml.do('upload(1).register(ws, "grades", create_new_version=True)')
