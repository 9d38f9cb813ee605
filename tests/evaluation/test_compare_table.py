"""The table of a comparison as text: what stands in it, and the few lines below it."""

from cgjax.evaluation import compare_table


def test_the_one_cluster_table_divides_by_the_floor_and_prints_the_paper_s_ratio():
    rows = [
        {"method": "members", "setting": "true", "frechet": 2.0, "ratio": 1.0},
        {"method": "flow", "setting": "unverified", "frechet": 2.1, "ratio": 1.05},
        {"method": "flow", "setting": compare_table.SAME_CODES, "frechet": 2.0, "ratio": 1.0},
        {"method": "imle", "setting": "unverified", "frechet": 4.0, "ratio": 2.0},
    ]
    lines = compare_table.domain_gap(rows).splitlines()
    assert lines[2].split()[-2:] == ["1.050", "1.050"]
    assert lines[4].split()[-1] == "2.000"
    assert lines[5].split()[-1] == "1.121"


def test_at_equal_accuracy_the_closest_setting_of_each_method_is_named():
    def row(method: str, setting: str, accuracy: float, distance: float) -> dict:
        limits = {"frechet_low": distance - 1, "frechet_high": distance + 1}
        line = {"method": method, "setting": setting, "accuracy": accuracy, "frechet": distance}
        return {"cluster": 0} | line | limits

    rows = [
        row("flow", "margin 0", 0.7, 10),
        row("flow", "margin 0.6", 0.975, 90),
        row("flow", "margin 0.8", 0.99, 200),
        row("sefa", "set 2", 0.98, 300),
        row("gaussian", "verified", 0.8, 20),
    ]
    lines = compare_table.closest(rows, 0.97).splitlines()
    assert "flow, margin 0.6: Frechet 90.0 (89.0 to 91.0), accuracy 0.975" in lines[1]
    assert "sefa, set 2" in lines[2]
    assert lines[3].endswith("never as accurate: gaussian")


def test_distances_of_any_scale_are_told_apart():
    def row(distance: float) -> dict:
        ends = {"frechet_low": 0.8 * distance, "frechet_high": 1.2 * distance}
        line = {"method": "flow", "setting": "verified", "cluster": 0, "accuracy": 1.0, "w1": 2e-4}
        return line | {"frechet": distance, "ratio": 1.0} | ends

    for distance, shown in (
        (0.01234, "0.0123"),
        (2e-9, "2.00e-09"),
        (371.4, "371"),
        (2e4, "20000"),
    ):
        text = compare_table.to_text([row(distance)], accuracy=0.9, num_clusters=2)
        assert f" {shown} " in text.splitlines()[1]
        assert "0.000200 " in text.splitlines()[1]
        assert f"Frechet {shown} (" in text
        assert f" {shown} " in compare_table.domain_gap([row(distance)]).splitlines()[1]
