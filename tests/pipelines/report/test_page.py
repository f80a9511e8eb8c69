"""The page in a real browser: what a person sees, hears and can do."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.commands import Ended, run_command

webdriver = pytest.importorskip("selenium.webdriver", reason="the page is tested with selenium, an extra of [dev]")
from axe_selenium_python import Axe  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.remote.webdriver import WebDriver  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="no Chromium with its driver here (Debian: chromium chromium-driver)"
)


@pytest.fixture(scope="module")
def folder(finished_run: tuple[Path, Ended], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose report has another run beside it."""
    root = tmp_path_factory.mktemp("report")
    for name in ("one", "other"):
        shutil.copytree(finished_run[0], root / name)
    ended = run_command(["report", "one", "--against", "other"], cwd=root)
    assert ended.code == 0, ended.err
    return root / "one"


@pytest.fixture(scope="module")
def requests(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The page's address on a server of this test, and the paths asked of it."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/report.html", asked
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser(requests: tuple[str, list[str]]) -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(120)  # axe takes long on a machine that others use
    driver.get(requests[0])
    yield driver
    driver.quit()


def column(browser: WebDriver, anchor: str, index: int) -> list[str]:
    cells = browser.find_elements(By.CSS_SELECTOR, f"[aria-labelledby={anchor}] tbody td:nth-child({index})")
    return [cell.text for cell in cells]


def test_nothing_but_the_page_is_asked_of_the_network(browser: WebDriver, requests: tuple[str, list[str]]) -> None:
    entries = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in entries if not name.endswith("favicon.ico")] == []
    assert set(requests[1]) <= {"/report.html", "/favicon.ico"}


def test_the_console_stays_silent(browser: WebDriver) -> None:
    messages = [entry["message"] for entry in browser.execute("getLog", {"type": "browser"})["value"]]
    assert [message for message in messages if "favicon.ico" not in message] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1200])
def test_accessibility_in_both_themes_on_phone_and_desk(browser: WebDriver, theme: str, width: int) -> None:
    browser.set_window_size(width, 900)
    if browser.execute_script("return document.documentElement.dataset.theme") != theme:
        browser.find_element(By.ID, "theme").click()
    axe = Axe(browser)
    axe.inject()
    violations = axe.run()["violations"]
    assert [(entry["id"], entry["nodes"][0]["target"]) for entry in violations] == []


def test_the_page_never_scrolls_sideways_on_a_phone(browser: WebDriver) -> None:
    browser.set_window_size(400, 900)
    widths = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]


def test_the_theme_changes_the_colours(browser: WebDriver) -> None:
    def background() -> str:
        return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))

    before = background()
    browser.find_element(By.ID, "theme").click()
    assert background() != before


def test_tables_sort_by_number_both_ways_with_the_keyboard(browser: WebDriver) -> None:
    heading = browser.find_element(By.CSS_SELECTOR, "[aria-labelledby=artefacts] th:nth-child(3)")
    button = heading.find_element(By.TAG_NAME, "button")
    button.send_keys("\n")
    assert heading.get_attribute("aria-sort") == "ascending"
    ascending = [float(text.split()[0]) for text in column(browser, "artefacts", 3)]
    assert ascending == sorted(ascending)
    button.send_keys(" ")
    assert heading.get_attribute("aria-sort") == "descending"
    assert [float(text.split()[0]) for text in column(browser, "artefacts", 3)] == sorted(ascending, reverse=True)


def test_both_runs_stand_side_by_side(browser: WebDriver) -> None:
    assert column(browser, "compared", 1) == ["this run", "other", "other"]
    assert column(browser, "compared", 2)[2] == "+0.00"  # of the same predictions
    chart = browser.find_element(By.CSS_SELECTOR, "[aria-labelledby=compared] [role=img]")
    assert "this run ends at" in (chart.get_attribute("aria-label") or "")
    assert "other ends at" in (chart.get_attribute("aria-label") or "")
    assert chart.find_element(By.TAG_NAME, "svg").size["width"] > 100


def test_every_section_of_the_contents_exists(browser: WebDriver) -> None:
    targets = [link.get_attribute("hash") for link in browser.find_elements(By.CSS_SELECTOR, "nav a")]
    assert len(targets) >= 8
    assert all(browser.find_elements(By.CSS_SELECTOR, f"h2{target}") for target in targets)
