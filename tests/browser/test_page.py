"""The page in Chromium: what a user sees first, what turns when a book is no longer right, and how it heals.

Screenshots are kept in the directory that BOOKBUS_SCREENSHOTS names, else in the test's own.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from bookbus.feeders.redis_server import LocalServer
from tests.support.builders import book
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
LIMIT = 15.0
MANY = 850

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Debian's chromium and chromium-driver")


class Page:
    """`python -m consumers web` in a process of its own, and the browser that shows it."""

    def __init__(self, driver: webdriver.Chrome, redis_url: str) -> None:
        self.driver = driver
        self.url = ""
        self._redis_url = redis_url
        self._process: subprocess.Popen[str] | None = None

    def start(self, port: int = 0) -> None:
        """Serve on `port`, or on a free one."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "consumers", "web", "--redis", self._redis_url, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().removeprefix("page: ").strip()
        assert self.url

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=LIMIT)
            self._process = None

    def open(self) -> None:
        self.driver.get(self.url)

    def find(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def text(self, selector: str) -> str:
        return str(
            self.driver.execute_script("return document.querySelector(arguments[0])?.textContent || ''", selector)
        )

    def keys(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def shown(self, condition: Callable[[], object], what: str, limit: float = LIMIT) -> None:
        wait_for(condition, limit, what)


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(driver: webdriver.Chrome, redis_url: str) -> Iterator[Page]:
    driver.set_window_size(1280, 800)
    page = Page(driver, redis_url)
    page.start()
    page.open()
    driver.execute_script("localStorage.clear()")
    page.open()
    errors(page)
    yield page
    page.stop()
    driver.get("about:blank")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def writer(client: redis.Redis) -> BusWriter:
    return BusWriter(client)


@pytest.fixture
def alive(writer: BusWriter) -> Iterator[Callable[[], None]]:
    """Confirms the books that the test has written, as a feeder does, until it is called."""
    ended = threading.Event()

    def confirm() -> None:
        with redis.Redis.from_url(f"redis://127.0.0.1:{writer.client.get_connection_kwargs()['port']}/0") as client:
            feeder = BusWriter(client)
            while not ended.wait(0.5):
                names = [key.decode().rpartition(":")[2] for key in client.smembers("md:books")]
                for name in names:
                    state, newest = client.hmget(f"md:book:binance:{name}", "state", "update_id")
                    if state == b"live":
                        feeder.submit(book(name, update_id=int(newest)), "again")
                feeder.heartbeat(names)

    thread = threading.Thread(target=confirm)
    thread.start()
    yield ended.set
    ended.set()
    thread.join(LIMIT)


def keep(page: Page, name: str, tmp_path: Path) -> None:
    directory = Path(os.environ.get("BOOKBUS_SCREENSHOTS", tmp_path))
    directory.mkdir(parents=True, exist_ok=True)
    page.driver.save_screenshot(str(directory / f"{name}.png"))


def errors(page: Page) -> list[str]:
    """What the browser logged since the last call."""
    logged: list[dict[str, str]] = page.driver.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in logged if entry["level"] in ("SEVERE", "WARNING")]


def test_books_appear_and_change_without_a_reload(
    page: Page, writer: BusWriter, alive: Callable[[], None], tmp_path: Path
) -> None:
    writer.update("BTC-USDT", update_id=1, bids=((99.5, 1.0),), asks=((100.5, 1.0),))
    page.shown(lambda: page.text(".tile .bid") == "99.5", "the bid")
    page.shown(lambda: page.text("#light") == "1 books live", "the live book")

    writer.update("BTC-USDT", update_id=2, bids=((99.7, 1.0),), asks=((100.5, 1.0),))

    page.shown(lambda: page.text(".tile .bid") == "99.7", "the new bid")
    keep(page, "books", tmp_path)
    assert errors(page) == []


def test_a_suspect_book_comes_first_with_its_reason_and_heals(
    page: Page, writer: BusWriter, alive: Callable[[], None], tmp_path: Path
) -> None:
    writer.submit_all([book("BTC-USDT", update_id=1), book("ETH-USDT", update_id=1)])
    page.shown(lambda: page.text("#light") == "2 books live", "two live books")

    writer.submit(book("ETH-USDT", update_id=1, state="suspect"), "state")

    page.shown(lambda: page.text(".tile .state").lower() == "suspect", "the mark", 2.0 + LIMIT)
    assert "out of sync" in page.text(".tile .reason")
    assert "1 of 2 books NOT live" in page.text("#light")
    keep(page, "suspect", tmp_path)

    writer.update("ETH-USDT", update_id=2)
    page.shown(lambda: page.text("#light") == "2 books live", "the healed book")
    page.keys("4")
    page.shown(lambda: len(page.find("#events tbody tr")) >= 2, "the events")


def test_a_dead_feeder_is_shown(page: Page, writer: BusWriter, alive: Callable[[], None], tmp_path: Path) -> None:
    writer.update()
    page.shown(lambda: page.text("#light") == "1 books live", "the live book")

    alive()

    page.shown(lambda: page.text(".tile .state").lower() in ("stale", "feeder down"), "the mark")
    keep(page, "dead", tmp_path)


def test_the_ladder_opens_by_keyboard_and_closes(
    page: Page, writer: BusWriter, alive: Callable[[], None], tmp_path: Path
) -> None:
    writer.update("BTC-USDT", bids=((99.5, 1.25), (99.0, 2.0)), asks=((100.5, 1.5),))
    page.shown(lambda: page.find(".tile"), "the tile")

    page.keys(Keys.ARROW_RIGHT)
    page.keys(Keys.ENTER)

    page.shown(lambda: "99.5" in page.text(".ladder"), "the ladder")
    assert len(page.find(".ladder tbody tr")) == 4  # two bids, one ask, the spread
    keep(page, "book", tmp_path)
    page.keys(Keys.ESCAPE)
    page.shown(lambda: page.find(".tile") and page.find("#book")[0].get_attribute("hidden"), "the overview")
    assert errors(page) == []


def test_a_lost_connection_is_said_and_heals(
    page: Page, writer: BusWriter, alive: Callable[[], None], tmp_path: Path
) -> None:
    writer.update()
    page.shown(lambda: page.text("#light") == "1 books live", "the live book")
    port = urlsplit(page.url).port

    page.stop()
    page.shown(lambda: "Connection lost" in page.text("#alarm"), "the alarm")
    keep(page, "lost", tmp_path)

    page.start(port or 0)
    page.shown(lambda: not page.text("#alarm") and page.text("#light") == "1 books live", "the end of the alarm")


def test_a_lost_redis_is_said(driver: webdriver.Chrome, own_redis_server: LocalServer) -> None:
    page = Page(driver, own_redis_server.url)
    page.start()
    try:
        page.open()
        own_redis_server.kill()
        page.shown(lambda: "cannot be read" in page.text("#alarm"), "the alarm")
    finally:
        page.stop()


def test_korean_a_phone_and_the_light_theme(
    page: Page, writer: BusWriter, alive: Callable[[], None], tmp_path: Path
) -> None:
    writer.submit_all([book(f"{base}-USDT", update_id=1) for base in ("BTC", "ETH", "XRP")])
    page.shown(lambda: len(page.find(".tile")) == 3, "the tiles")

    page.driver.set_window_size(390, 844)
    page.keys("l")
    page.keys("t")

    page.shown(lambda: "정상" in page.text("#light"), "Korean")
    assert page.driver.execute_script("return document.documentElement.lang") == "ko"
    wide, shown = page.driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= shown
    keep(page, "phone", tmp_path)


def test_filter(page: Page, writer: BusWriter, alive: Callable[[], None]) -> None:
    writer.submit_all([book(f"{base}-USDT", update_id=1) for base in ("BTC", "ETH", "XRP")])
    page.shown(lambda: len(page.find(".tile")) == 3, "the tiles")

    page.keys("/")
    page.keys("xrp")

    page.shown(lambda: len(page.find(".tile")) == 1, "one tile")


def test_many_books_stay_readable(page: Page, writer: BusWriter, tmp_path: Path) -> None:
    names = [f"A{number}-USDT" for number in range(MANY)]
    writer.submit_all([book(name, update_id=1, native=name.replace("-", "")) for name in names])
    page.shown(lambda: len(page.find(".tile")) == MANY, "all tiles", 4 * LIMIT)

    writer.update("A5-USDT", update_id=2, native="A5USDT", bids=((77.0, 1.0),))

    page.shown(lambda: page.text('[data-key="binance:A5-USDT"] .bid').startswith("77"), "the new bid")
    keep(page, "many", tmp_path)
    assert errors(page) == []
