"""The page in a real browser: what opens, sorts, filters and follows the pointer. Needs Selenium and Chromium."""

import os
import re
import shutil
import time

import pytest

from zfcuda.report import Drawing, Report, Section, Table
from zfcuda.report.study import join

from .fakes import make_report
from .test_drawing import residual_net
from .test_signals import signal_report

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("Chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1200,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, tmp_path):
    path = make_report().save(tmp_path)
    browser.get(path.as_uri())
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def one(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def every(page, selector):
    return page.find_elements(By.CSS_SELECTOR, selector)


def eventually(page, holds):
    """Waits for what the browser does a moment after the event: following a link, moving the pointer."""
    WebDriverWait(page, 10, poll_frequency=0.02).until(lambda _: holds())


def at(page, element, x, y):
    """The pointer at fractions (x, y) of an element."""
    size = element.size
    offset = (round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"]))
    return webdriver.ActionChains(page).move_to_element_with_offset(element, *offset)


def test_hostile_names_stay_text(page):
    assert not page.execute_script("return window.hacked")
    assert "<script>" in one(page, "h1").text
    assert every(page, "img[src='x']") == []


def test_click_on_a_tile_opens_that_winner(page):
    dialog = one(page, "dialog")
    assert not dialog.is_displayed()
    at(page, one(page, ".map [data-side='patch'] img"), 0.5, 0.9).click().perform()
    eventually(page, dialog.is_displayed)
    assert "place 8 of 9" in dialog.text  # bottom row, middle
    assert "activation" in dialog.text
    assert re.search(r"projection drawn to ±\d", dialog.text)
    box = one(page, "dialog .canvas.image i")
    assert box.is_displayed()
    assert box.size["width"] > 0
    one(page, "dialog .next").click()
    assert "place 9 of 9" in dialog.text
    dialog.send_keys(Keys.ARROW_RIGHT)
    assert "place 1 of 9" in dialog.text
    one(page, "dialog .close").click()
    assert not dialog.is_displayed()


def test_a_map_opens_from_the_keyboard(page):
    one(page, ".map button").send_keys(Keys.ENTER)
    assert "place 1 of 9" in one(page, "dialog").text


def test_search_narrows_the_maps(page):
    shown = lambda: [m for m in every(page, ".map") if m.is_displayed()]  # noqa: E731
    before = len(shown())
    search = one(page, ".search")
    search.send_keys("pool1 2")
    assert [m.find_element(By.CSS_SELECTOR, "figcaption").text.split("\n")[0] for m in shown()] == ["map 2"]
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys("no such thing")
    assert shown() == []
    assert one(page, ".gallery .empty").is_displayed()
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys(Keys.DELETE)
    assert len(shown()) == before


def test_a_click_sorts_a_table_by_number_and_back(page):
    column = lambda n: [row.find_elements(By.TAG_NAME, "td")[n].text for row in every(page, "tbody tr")]  # noqa: E731
    heads = every(page, "th button")
    heads[1].click()
    assert column(1) == ["12.20", "9.50", "-"]  # largest first, no number last
    heads[1].click()
    assert column(1) == ["9.50", "12.20", "-"]
    heads[0].click()
    assert column(0) == sorted(column(0))


def test_the_square_follows_the_pointer(page):
    readout = one(page, ".explorer .readout")
    panel = every(page, ".explorer [data-panel='map']")[1]
    stage = panel.find_element(By.CSS_SELECTOR, ".stage")
    at(page, stage, 0.95, 0.05).perform()  # first row, last column of a 3 x 4 map
    eventually(page, lambda: "rows 0\u20133, columns 12\u201315" in readout.text)
    assert "40.0 %" in readout.text
    square = one(page, ".explorer .square")
    image = one(page, ".explorer [data-panel='image'] img")
    assert square.is_displayed()
    assert square.rect["x"] == pytest.approx(image.rect["x"] + image.rect["width"] * 12 / 16, abs=2)
    panel.send_keys(Keys.ARROW_DOWN)
    assert "rows 4\u20137, columns 12\u201315" in readout.text
    at(page, image, 0.01, 0.99).perform()
    eventually(page, lambda: "columns 0\u20133" in readout.text)


def test_signals_can_be_seen_and_followed(browser, tmp_path):
    browser.get(signal_report().save(tmp_path).as_uri())
    for image in every(browser, ".map img, .stage img"):
        assert image.size["height"] > 25
    panel = every(browser, ".explorer [data-panel='map']")[1]
    at(browser, panel.find_element(By.CSS_SELECTOR, ".stage"), 0.95, 0.5).perform()  # the last of 8 columns
    eventually(browser, lambda: "covered samples 56\u201363: " in one(browser, ".explorer .readout").text)
    square, image = one(browser, ".explorer .square").rect, one(browser, ".explorer [data-panel='image'] img").rect
    assert square["height"] == pytest.approx(image["height"], abs=2)
    assert square["x"] == pytest.approx(image["x"] + image["width"] * 56 / 64, abs=2)
    one(browser, ".map button").click()
    eventually(browser, one(browser, "dialog").is_displayed)
    canvas, box = one(browser, "dialog .canvas.image").rect, one(browser, "dialog .canvas.image i").rect
    assert canvas["height"] == pytest.approx(canvas["width"] / 2, abs=2)
    assert box["height"] == pytest.approx(canvas["height"], abs=2)
    assert re.search(r"at place \d+ of the map .* samples \d+\S\d+ of 64", one(browser, "dialog .facts").text)
    one(browser, "dialog .close").click()
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_slider_shows_one_epoch(page):
    slider = one(page, ".slider input")
    frames = every(page, ".slider .frames img")
    assert [f.is_displayed() for f in frames] == [False, False, True]
    slider.send_keys(Keys.ARROW_LEFT)
    assert [f.is_displayed() for f in frames] == [False, True, False]
    assert one(page, ".slider output").text == "epoch 2"


def test_texts_of_the_drawing_stay_in_their_boxes(browser, tmp_path):
    name = "".join(f"W{i}W" for i in range(30))
    report = Report("Wide", sections=[Section("The network", [Drawing(residual_net(name), [])])])
    browser.get(report.save(tmp_path).as_uri())
    for box in every(browser, ".drawing g"):
        frame, inside = box.find_element(By.TAG_NAME, "rect").rect, box.find_element(By.TAG_NAME, "svg")
        width = float(inside.get_attribute("x")) + float(inside.get_attribute("width"))
        assert width <= frame["width"] - 8 + 1
        assert browser.execute_script("return getComputedStyle(arguments[0]).overflow", inside) == "hidden"


def test_words_in_tables_are_not_broken_while_there_is_room(browser, tmp_path):
    rows = [["automobile/0280.jpg", "automobile", 0.5], ["x" * 300, "truck", 0.25]]
    for table, least in ((rows[:1], 1), (rows, 2)):
        report = Report("Words", sections=[Section("Table", [Table(("image", "class", "probability"), table)])])
        browser.get(report.save(tmp_path).as_uri())
        heights = [row.size["height"] for row in every(browser, "tbody tr")]
        assert heights[0] < 45
        assert (len(heights) == 1) or heights[1] > 60  # what is longer than its column is broken
        assert every(browser, "table")[0].size["width"] <= 1200
        assert len(heights) == least


def test_light_and_dark(page):
    color = lambda: page.execute_script("return getComputedStyle(document.body).backgroundColor")  # noqa: E731
    before = color()
    one(page, ".theme").click()
    assert color() != before


def test_a_study_unfolds_its_runs(browser, tmp_path):
    for name in ("a", "b"):
        make_report().save(tmp_path / name)
    browser.get(join([tmp_path / "a", tmp_path / "b"], tmp_path / "study").as_uri())
    runs = every(browser, "details.run")
    assert [run.get_attribute("open") is not None for run in runs] == [True, False]
    every(browser, ".links a")[1].click()
    eventually(browser, lambda: runs[1].get_attribute("open") is not None)
    runs[1].find_element(By.CSS_SELECTOR, ".map button").send_keys(Keys.ENTER)
    assert "place 1 of 9" in one(browser, "dialog").text
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_nothing_is_wider_than_a_phone(page):
    page.set_window_size(500, 900)  # the narrowest that a headless window gets
    page.execute_script("document.body.style.width = '360px'")
    assert page.execute_script("return document.body.scrollWidth") <= 360
    page.set_window_size(1200, 900)


_HASTY = """
window.ticks = 0;
const real = window.setInterval;
window.setInterval = (call) => real(() => { if (window.hasty) { window.ticks += 1; call(); } }, 20);
"""


@pytest.fixture
def hasty(browser):
    """A browser whose intervals are short, and counted, where the page's script says that it is in haste."""
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _HASTY})
    yield browser
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def stays(page):
    """Whether it is the same page for some intervals."""
    page.execute_script("window.hasty = true")
    eventually(page, lambda: page.execute_script("return window.ticks") > 3)
    return bool(every(page, ".unfinished"))


def test_an_unfinished_page_is_read_again_but_not_under_an_open_dialog(hasty, tmp_path):
    report = make_report()
    path = report.write_page(tmp_path, unfinished="Unfinished.")
    hasty.get(path.as_uri())
    hasty.execute_script("document.querySelector('dialog').showModal()")
    report.write_page(tmp_path)
    assert stays(hasty)
    hasty.execute_script("document.querySelector('dialog').close()")
    eventually(hasty, lambda: not every(hasty, ".unfinished"))


def test_what_was_left_unfinished_is_not_read_again(hasty, tmp_path):
    path = make_report().write_page(tmp_path, unfinished="Unfinished.")
    os.utime(path, (time.time() - 1200,) * 2)
    hasty.get(path.as_uri())
    assert stays(hasty)
