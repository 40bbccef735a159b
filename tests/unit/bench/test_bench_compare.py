"""The regression guard of the benchmarks: which ratios count as worse, and its exit codes."""

import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture(autouse=True)
def _bench_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    for name in ("compare", "results", "measure"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def write(path: Path, ratios: dict[str, float]) -> Path:
    path.write_text(json.dumps({"machine": "test", "ratios": ratios}))
    return path


def test_a_ratio_is_worse_below_the_tolerance() -> None:
    from compare import compare

    record = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "gone": 1.0}
    found = compare(record, {"a": 0.79, "b": 0.81, "c": 1.24, "d": 1.26, "new": 1.0}, 0.2)
    assert found.worse == {"a": (1.0, 0.79)}
    assert found.better == {"d": (1.0, 1.26)}
    assert set(found.same) == {"b", "c"}
    assert (found.missing, found.new) == (["gone"], ["new"])


@pytest.mark.parametrize(("now", "code"), [(0.7, 1), (0.9, 0), (2.0, 0)], ids=["worse", "as before", "better"])
def test_the_exit_code_says_whether_something_got_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], now: float, code: int
) -> None:
    from compare import main

    record, last = write(tmp_path / "record.json", {"case": 1.0}), write(tmp_path / "last.json", {"case": now})
    assert main(["--files", str(record), str(last), "--tolerance", "0.2"]) == code
    assert f"case: 1.00 -> {now:.2f}" in capsys.readouterr().out


def test_what_was_not_measured_is_said_and_is_not_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from compare import main

    record, last = write(tmp_path / "record.json", {"case": 1.0}), write(tmp_path / "last.json", {})
    assert main(["--files", str(record), str(last)]) == 0
    assert "not measured in the last run: case" in capsys.readouterr().out


def test_the_last_run_becomes_the_record(tmp_path: Path) -> None:
    from compare import main

    record, last = tmp_path / "record.json", write(tmp_path / "last.json", {"case": 1.5})
    assert main(["--files", str(record), str(last)]) == 2  # nothing to compare with
    assert main(["--files", str(record), str(last), "--record"]) == 0
    assert json.loads(record.read_text())["ratios"] == {"case": 1.5}
    assert main(["--files", str(record), str(last)]) == 0


def test_without_a_run_there_is_nothing_to_compare(tmp_path: Path) -> None:
    from compare import main

    assert main(["--files", str(write(tmp_path / "record.json", {})), str(tmp_path / "none.json")]) == 2


def test_every_variant_of_ours_is_compared_with_every_peer() -> None:
    from measure import Sample, Series
    from results import Table

    def series(name: str, wall: float, cpu: float) -> Series:
        return Series(name, [Sample(wall, cpu)])

    table = Table(
        "case", "a case", [series("ours, S3", 2, 4), series("ours, folder", 1, 0), series("peer", 3, 2)], 2**30
    )
    assert table.ratios() == {
        "case: ours, S3 / peer": 1.5,
        "case: ours, S3 / peer (CPU)": 0.5,
        "case: ours, folder / peer": 3.0,
    }
    assert table.cpu_per_gb(table.series[0]) == pytest.approx(4 / 1.073741824)
    assert table.cpu_per_gb(table.series[1]) is None
