"""The page's tables, from the files of a comparison and a sweep."""

from cgjax.evaluation.compare_table import COLUMNS
from cgjax.report import tables
from cgjax.runtime.csv_text import as_csv

ROW = {
    "method": "flow",
    "setting": "verified",
    "cluster": 0,
    "num": 200,
    "judge": "face_mesh",
    "attribute": "yaw >= 10",
    "feature": "pca48_pixels",
    "accuracy": 0.5327,
    "accuracy_low": 0.5101,
    "accuracy_high": 0.5551,
    "frechet": 1374.2,
    "frechet_low": 1327.9,
    "frechet_high": 1422.4,
    "frechet_floor": 11.57,
}


def test_numbers_of_a_comparison_are_shown_with_their_interval_and_judge(tmp_path):
    path = tmp_path / "compare.csv"
    path.write_text(as_csv([ROW, ROW | {"cluster": 1, "attribute": "yaw <= -10"}], COLUMNS))
    found = tables.read_comparison(path)
    line = dict(zip(found["titles"], found["rows"][0], strict=True))
    assert line["judged accuracy"] == "0.533 (0.510\u00a0to\u00a00.555)"
    assert line["Frechet distance"] == "1374 (1328\u00a0to\u00a01422)"
    assert line["floor"] == "11.6", "what has no interval stands alone"
    assert (found["judge"], found["feature"], found["num"]) == ("face_mesh", "pca48_pixels", "200")
    assert found["attributes"] == ["yaw >= 10", "yaw <= -10"]


def test_all_shares_have_the_same_number_of_decimals(tmp_path):
    path, exact = tmp_path / "compare.csv", ("accuracy", "accuracy_low", "accuracy_high")
    path.write_text(as_csv([ROW, ROW | dict.fromkeys(exact, 1) | {"acceptance": 1}], COLUMNS))
    found = tables.read_comparison(path)
    line = dict(zip(found["titles"], found["rows"][1], strict=True))
    assert line["judged accuracy"] == "1.000 (1.000\u00a0to\u00a01.000)"
    assert line["acceptance"] == "1.000"
    assert line["cluster"] == "0"


def test_without_a_judge_there_is_no_column_of_accuracy(tmp_path):
    path = tmp_path / "compare.csv"
    path.write_text(as_csv([{k: v for k, v in ROW.items() if "accuracy" not in k}], COLUMNS))
    assert "judged accuracy" not in tables.read_comparison(path)["titles"]


def test_without_a_comparison_there_is_no_table(tmp_path):
    assert tables.read_comparison(tmp_path / "compare.csv") is None
