"""A real browser for the report: a headless Chromium without a network, and the page of a thousand runs."""

import json
import os
import shutil
from pathlib import Path

import pytest

from analysis import figures
from analysis.report import write_report
from analysis.sweep_fit import fit_sweep
from analysis.tables import build_table, write_table

QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")
NASTY = "</script><script>document.title='broken out'</script> <img src=x onerror=\"document.title='broken out'\"> & 'quotes'"


@pytest.fixture(scope="session")
def programs() -> tuple[str, str]:
    """Chromium and its driver; the tests are skipped where nobody asked for them, and fail where one is asked for and lacking."""
    if not os.environ.get("SAESCALE_BROWSER"):
        pytest.skip("`make test-browser` opens the report in a Chromium of this machine")
    found = tuple(shutil.which(name) for name in ("chromium", "chromedriver"))
    if None in found:
        pytest.fail("SAESCALE_BROWSER is set and chromium or chromedriver is missing: apt-get install chromium chromium-driver")
    return found


@pytest.fixture(scope="session")
def page(programs, make_store, sweep_of, tmp_path_factory):  # noqa: ARG001 (nothing is made where no browser is wanted)
    """index.html of 1,000 planned runs: one failed for a nasty reason, one damaged, one never started."""
    root = tmp_path_factory.mktemp("runs")
    plan = make_store(root, sweep_of(run_sd=0.02, seeds=40), question=NASTY)
    plan["runs"] = plan["runs"][:1000]
    failed, damaged, missing = (root / "by-id" / run["run_id"] for run in plan["runs"][500:503])
    (failed / "result.json").unlink()
    (failed / "status.json").write_text(json.dumps({"state": "failed", "reason": NASTY}))
    (damaged / "result.json").write_text("{")
    shutil.rmtree(missing)
    folder = root / "demo"
    table = build_table(plan, root)
    write_table(table, folder / "table.csv")
    fits = fit_sweep(table, draws=100)
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "fits.json").write_text(json.dumps(fits))
    drawn = [figures.write(name, folder / "report" / "figures", table, fits) for name in figures.SWEEP_FIGURES]
    steering = json.loads((Path(__file__).parents[3] / "results" / "concepts_again" / "steering.json").read_text())
    drawn.append(figures.write("steering", folder / "report" / "figures", steering))
    return write_report(folder, plan, table, fits, drawn)


@pytest.fixture(scope="module", params=[390, 1600], ids=["phone", "wide"])
def browser(request, programs, page, tmp_path_factory):
    """The page, opened at one width, its console and its requests on record."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", "--window-size=1600,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    try:
        width = request.param
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()
