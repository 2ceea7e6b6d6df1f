"""The tables of the benchmarks, made of a sample result."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import report

SEPARATE = {
    "schema": 1,
    "benchmark": "separate",
    "settings": {"model": "umxhq", "niter": 1, "precision": "full", "seconds": 30.0},
    "environment": {
        "date": "2020-01-02T03:04:05+00:00",
        "threads": 2,
        "machine": {"cpu": "A processor", "cores": 2, "os": "Linux 1", "others_share": 0.01},
        "versions": {"python": "3.12.0", "numpy": "2.0.0", "torch": "2.9.0"},
        "umx_np": {"level": "x86-64-v3"},
        "source": {"commit": "0123456789abcdef", "dirty": True},
    },
    "agreements": [
        {"what": "vocals", "snr_db": 120.0, "at_least_db": 60.0},
        {"what": "drums", "snr_db": 110.0, "at_least_db": 60.0},
    ],
    "rows": [
        {
            "figure": "separate 30 s",
            "unit": "s",
            "ours": {"median": 0.9, "low": 0.88, "high": 0.95},
            "peer": "openunmix (torch)",
            "theirs": {"median": 5.4, "low": 5.3, "high": 5.9},
            "ratio": 6.0,
            "headline": True,
            "brief": True,
        },
        {
            "figure": "an aside",
            "unit": "MB",
            "ours": {"median": 12.0, "low": 12.0, "high": 12.0},
            "peer": None,
            "theirs": None,
            "ratio": None,
            "headline": False,
            "brief": False,
        },
    ],
    "ladder": [],
    "timings": {},
    "details": {"times_real_time": {"umx_np": 33.3, "openunmix": 5.6}},
    "ratio": 6.0,
    "share": None,
}
LADDER = {
    **SEPARATE,
    "benchmark": "kernel_lstm",
    "rows": [],
    "ladder": [
        {
            "kernel": "step of 256 units",
            "variant": "x86-64-v3",
            "threads": 1,
            "time": 12.5,
            "time_unit": "us",
            "rate": 84.0,
            "unit": "GB/s",
            "ceiling": 100.0,
            "share": 0.84,
            "chosen": True,
        }
    ],
}


@pytest.fixture
def tree(tmp_path):
    """A README with markers, and a folder with results."""
    readme, results = tmp_path / "README.md", tmp_path / "results"
    readme.write_text(f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nThe end.\n")
    results.mkdir()
    (results / "separate_umxhq_niter1.json").write_text(json.dumps(SEPARATE))
    (results / "kernel_lstm.json").write_text(json.dumps(LADDER))
    return readme, results


def test_the_tables_show_the_results(tree):
    readme, results = tree
    texts = report.pages(readme, results)
    short, full = texts[readme], texts[results / "README.md"]
    row = (
        "| separate 30 s | 0.900 s (0.880 to 0.950) | openunmix (torch) "
        "| 5.40 s (5.30 to 5.90) | 6.00 |"
    )
    assert f"{row} a |" in short
    assert row in full
    run = "A processor, 2 cores, 2 threads, x86-64-v3; Linux, python 3.12.0, numpy 2.0.0, torch"
    assert f"- run a: {run} 2.9.0; commit 0123456789 with changes; 2020-01-02" in short
    assert "an aside" not in short
    assert "| an aside | 12.0 MB | - | - | - |" in full
    assert "| step of 256 units | x86-64-v3 | 1 | 12.5 us | 84.0 GB/s | 84 % |" in full
    assert "Outputs compared: 2; least agreement 110 dB (drums)" in full
    assert short.startswith("# Title\n")
    assert short.endswith("\n\nThe end.\n")
    assert "old" not in short


def test_results_of_different_runs_are_told_apart(tree):
    readme, results = tree
    other = json.loads(json.dumps(SEPARATE))
    other["environment"]["threads"] = 1
    (results / "separate_umxl_niter1.json").write_text(json.dumps(other))
    short = report.pages(readme, results)[readme]
    assert "| 6.00 | a |" in short
    assert "| 6.00 | b |" in short
    assert "- run b: A processor, 2 cores, 1 threads" in short


def test_check_finds_what_is_stale(tree, monkeypatch):
    readme, results = tree
    monkeypatch.setitem(sys.modules, "benchmarks.plot", None)  # as without matplotlib
    with pytest.raises(report.StaleReportError, match=r"python -m benchmarks\.report"):
        report.check(readme, results)
    report.write(readme, results)
    report.check(readme, results)
    changed = json.loads(json.dumps(SEPARATE))
    changed["rows"][0]["ratio"] = 7.0
    (results / "separate_umxhq_niter1.json").write_text(json.dumps(changed))
    before = readme.read_text()
    with pytest.raises(report.StaleReportError):
        report.check(readme, results)
    assert readme.read_text() == before


@pytest.mark.parametrize(
    "text",
    ["no markers", f"{report.BEGIN} only", f"{report.END} {report.BEGIN}", 2 * report.BEGIN],
)
def test_markers_have_to_be_there(text):
    with pytest.raises(report.StaleReportError, match="once each"):
        report.replace_region(text, "region")


def test_results_of_another_schema_are_refused(tree):
    readme, results = tree
    (results / "kernel_lstm.json").write_text(json.dumps({**LADDER, "schema": 0}))
    with pytest.raises(report.StaleReportError, match=r"kernel_lstm\.json has schema=0"):
        report.pages(readme, results)


def test_without_results_the_table_says_so(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"{report.BEGIN}\n{report.END}\n")
    assert "Nothing has been measured yet" in report.pages(readme, tmp_path / "none")[readme]


def test_the_plot_is_the_same_every_time(tree):
    pytest.importorskip("matplotlib")
    from benchmarks.plot import draw

    _, results = tree
    documents = report.load(results)
    memory = json.loads(json.dumps(SEPARATE))
    points = [{"minutes": m, "peak_mb": 400.0 + m, "seconds": m} for m in (1.0, 10.0)]
    memory["benchmark"] = "memory"
    memory["details"] = {"points": {"umx_np": points, "openunmix (torch)": points[:1]}}
    documents["memory"] = memory
    draw(documents, results / "one.svg")
    draw(documents, results / "two.svg")
    one = (results / "one.svg").read_bytes()
    assert one == (results / "two.svg").read_bytes()
    assert b"times real time" in one
    assert len(one) < 100_000


def test_the_tables_of_this_tree_are_up_to_date():
    report.check()
