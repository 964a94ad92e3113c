"""The report in a browser, at the width of a phone and of a wide screen. The page stays open: each test leaves it as it was."""

import json

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.browser


def until(browser, condition):
    return WebDriverWait(browser, 20).until(condition)


def rows(browser) -> list[str]:
    """The run ids in the table, top to bottom."""
    return browser.execute_script("return [...document.querySelectorAll('#run-table tbody .run')].map(b => b.textContent)")


def typed(browser, text: str) -> None:
    """Put `text` into the filter by keyboard and wait for the table."""
    box = browser.find_element(By.ID, "filter")
    box.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.DELETE, text)
    words = text.lower().split()
    until(browser, lambda _: (len(rows(browser)) == 1000) if not words else len(rows(browser)) < 1000)


def drawn(browser, name: str):
    """The canvas of a plot, scrolled to and drawn."""
    figure = browser.find_element(By.ID, f"plot-{name}")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    until(browser, lambda _: figure.get_attribute("data-drawn") == "yes")
    return figure.find_element(By.CSS_SELECTOR, ".frame canvas")


def press(browser, *keys: str) -> None:
    browser.switch_to.active_element.send_keys(*keys)


def test_nothing_is_asked_of_a_network(browser, page):
    drawn(browser, "loss_vs_compute")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    ours = {request["request"]["url"] for request in asked if request["documentURL"] == page.as_uri()}
    assert page.as_uri() in ours
    assert all(url.startswith(("file:", "data:")) for url in ours)


def test_it_opens_and_says_nothing_on_the_console(browser):
    timing = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    for name in ("loss_vs_compute", "isoflop_valleys", "optimal_allocation", "quality_vs_compute"):
        drawn(browser, name)
    assert len(rows(browser)) == 1000
    assert browser.get_log("browser") == []
    print(f"1,000 runs loaded in {timing:.0f} ms")


def test_what_users_write_does_not_break_out(browser):
    assert browser.title == "demo: scaling report"
    assert "</script>" in browser.find_element(By.TAG_NAME, "h1").text


def test_the_page_is_no_wider_than_the_screen(browser):
    for name in ("loss_vs_compute", "optimal_allocation"):
        drawn(browser, name)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_pointing_at_a_mark_names_its_run(browser):
    canvas = drawn(browser, "loss_vs_compute")
    point = browser.execute_script("""
        const chart = Chart.getChart(arguments[0]), box = arguments[0].getBoundingClientRect();
        const i = chart.data.datasets.findIndex(d => d.data.some(p => p.run >= 0)), at = chart.getDatasetMeta(i).data[0];
        return {x: box.left + at.x, y: box.top + at.y}""", canvas)
    for x in (0, point["x"]):
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": point["y"]})
    tip = browser.find_element(By.ID, "tip")
    until(browser, lambda _: tip.is_displayed())
    assert tip.find_element(By.TAG_NAME, "b").text in rows(browser)
    assert "objective" in tip.text
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 0, "y": 0})


def test_all_of_a_series_is_drawn_error_bars_and_their_gaps_too(browser):
    drawn(browser, "steering")
    left_out = browser.execute_script("""
        return [...document.querySelectorAll('#plot-steering .frame canvas')].map(c => Chart.getChart(c)).flatMap(chart =>
            chart.getSortedVisibleDatasetMetas().map(m => m.data.length - m.controller._drawCount))""")
    assert len(left_out) > 8 and set(left_out) == {0}


def test_arrow_keys_walk_over_the_points_and_enter_picks_the_run(browser):
    canvas = drawn(browser, "loss_vs_compute")
    tip, known = browser.find_element(By.ID, "tip"), set(rows(browser))
    for _ in range(50):  # the first points may be fitted minima
        canvas.send_keys(Keys.ARROW_RIGHT)
        until(browser, lambda _: tip.is_displayed())
        named = tip.find_element(By.TAG_NAME, "b").text
        if named in known:
            break
    canvas.send_keys(Keys.ENTER)
    assert browser.find_element(By.CSS_SELECTOR, "#picked code").text == named
    assert browser.find_element(By.CSS_SELECTOR, "tr.picked .run").text == named
    canvas.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    browser.find_element(By.CSS_SELECTOR, "#picked .clear").click()
    assert not browser.find_element(By.ID, "picked").is_displayed()


def test_dragging_looks_closer_and_a_double_click_shows_all_again(browser):
    canvas = drawn(browser, "loss_vs_compute")
    limits = "const s = Chart.getChart(arguments[0]).scales; return [s.x.min, s.x.max, s.y.min, s.y.max]"
    whole = browser.execute_script(limits, canvas)
    ActionChains(browser).move_to_element(canvas).click_and_hold().move_by_offset(60, 40).release().perform()
    closer = browser.execute_script(limits, canvas)
    assert whole[0] < closer[0] < closer[1] < whole[1] and whole[2] < closer[2] < closer[3] < whole[3]
    assert not browser.find_element(By.ID, "picked").is_displayed()
    ActionChains(browser).double_click(canvas).perform()
    assert browser.execute_script(limits, canvas) == whole
    browser.execute_script("report.events.pick(-1)")


def test_the_legend_switches_a_series_off_by_keyboard(browser):
    canvas = drawn(browser, "isoflop_valleys")
    button = browser.find_element(By.CSS_SELECTOR, "#plot-isoflop_valleys button.key")
    hidden = "return Chart.getChart(arguments[0]).data.datasets.filter(d => d.hidden).length"
    before = browser.execute_script(hidden, canvas)
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-pressed") == "false"
    assert before == 0 and browser.execute_script(hidden, canvas) > 0
    button.send_keys(Keys.ENTER)
    assert browser.execute_script(hidden, canvas) == 0


def test_runs_that_failed_stand_first_with_their_reason(browser):
    first = browser.find_elements(By.CSS_SELECTOR, "#run-table tbody tr")[:3]
    states = [row.find_element(By.CSS_SELECTOR, ".state").text for row in first]
    assert states == ["failed", "damaged", "missing"]
    assert "</script>" in first[0].find_element(By.CLASS_NAME, "reason").text
    assert "not valid JSON" in first[1].text and "not started" in first[2].text


def test_the_table_is_filtered_by_words_and_by_state(browser):
    typed(browser, "n1024- s3")
    assert rows(browser) and all("n1024-" in run and "-s3" in run for run in rows(browser))
    typed(browser, "")
    browser.find_element(By.CSS_SELECTOR, "#states [data-state=failed]").send_keys(Keys.ENTER)
    assert len(rows(browser)) == 1
    browser.find_element(By.CSS_SELECTOR, '#states [data-state=""]').send_keys(Keys.ENTER)
    assert len(rows(browser)) == 1000


def test_headings_sort_by_keyboard_and_missing_numbers_stand_last(browser):
    before, box = rows(browser), browser.find_element(By.ID, "filter")
    browser.execute_script("arguments[0].focus()", box)
    for _ in range(40):
        press(browser, Keys.TAB)
        if browser.switch_to.active_element.text.strip().startswith("objective"):
            break
    losses = """const at = [...document.querySelectorAll('#run-table th')].findIndex(h => h.textContent.startsWith('objective'));
        return [...document.querySelectorAll('#run-table tbody tr')].map(r => parseFloat(r.children[at].textContent))"""
    for direction in ("ascending", "descending"):
        press(browser, Keys.ENTER)
        assert browser.find_element(By.CSS_SELECTOR, "th[aria-sort]").get_attribute("aria-sort") == direction
        values = browser.execute_script(losses)
        known = [value for value in values if value is not None]
        assert values[-3:] == [None] * 3 and known == sorted(known, reverse=direction == "descending")
    press(browser, Keys.ENTER)
    assert rows(browser) == before


def test_the_first_tab_leads_past_the_navigation(browser):
    browser.refresh()
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    press(browser, Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "main"


def test_light_and_dark_are_chosen_by_a_button_and_kept(browser):
    def paper():
        return browser.execute_script("return getComputedStyle(document.body).backgroundColor")

    button, seen = browser.find_element(By.ID, "theme"), {}
    for _ in range(2):
        button.send_keys(Keys.ENTER)
        seen[browser.execute_script("return document.documentElement.dataset.theme")] = paper()
    assert set(seen) == {"light", "dark"} and seen["light"] != seen["dark"]
    browser.refresh()
    assert paper() == seen["dark"]
    browser.find_element(By.ID, "theme").send_keys(Keys.ENTER)
    assert browser.execute_script("return document.documentElement.dataset.theme") == "auto"
