"""The report in a real browser: it fits a phone, can be read in light and dark, prints, and asks for nothing else."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, Tab
from test_html_page import SECTIONS, wide

from onnx_subprune import report
from onnx_subprune.pipeline import Result

PHONE = 390

# Elements with words of their own that stand out too little (WCAG 2.1: 4.5, large type 3), and shapes (3).
CONTRAST = """(() => {
  const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = rgb => {
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = rgb.slice(0, 3).map(value => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const found = numbers(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || (found.length === 4 && found[3] > 0)) return found;
    }
    return [255, 255, 255];
  };
  const faults = [];
  let seen = 0;
  for (const element of document.body.querySelectorAll("*")) {
    const style = getComputedStyle(element);
    const words = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && +style.fontWeight >= 700);
    let pair = null, least = 3;
    if (words) { pair = [numbers(style.color), behind(element)]; least = large ? 3 : 4.5; }
    else if (element.matches(".bar i")) pair = [numbers(style.backgroundColor), behind(element.parentElement)];
    else if (element.matches("path")) pair = [numbers(style.stroke), behind(element.closest("svg"))];
    else if (element.matches("circle")) pair = [numbers(style.fill), behind(element.closest("svg"))];
    if (!pair) continue;
    seen += 1;
    const found = ratio(...pair);
    const name = `${element.tagName}.${element.className.baseVal ?? element.className}`;
    if (found < least) faults.push(`${name} ${found.toFixed(2)}`);
  }
  return [seen, [...new Set(faults)]];
})()"""

WIDER = """[...document.body.querySelectorAll("*")]
  .filter(one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".wide"))
  .map(one => one.tagName)"""


@pytest.fixture(scope="module", params=["small", "wide"])
def page(request: pytest.FixtureRequest, result: Result, data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    labelled = {**data, "labels": np.zeros(200, np.int64)}
    document = result.document(measured=result.measure(data, labelled=labelled), command=["onnx-subprune", "x" * 400])
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.write_report(document if request.param == "small" else wide(document, 120), path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, 1280])
def test_it_fits_is_legible_and_keeps_to_itself(browser: Browser, page: Path, width: int, scheme: str) -> None:
    tab = Tab(browser, page, width=width, scheme=scheme)
    assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert tab.evaluate(WIDER) == []
    assert [name for name in SECTIONS if not tab.evaluate(f"document.getElementById('{name}').offsetHeight > 0")] == []
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("document.querySelector('meta[name=viewport]').content").startswith("width=device-width")
    seen, faults = tab.evaluate(CONTRAST)
    assert seen > 100
    assert faults == []
    assert tab.complaints() == []
    assert tab.requests() == [page.resolve().as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_inspect_fits_and_is_legible(browser: Browser, result: Result, tmp_path: Path, scheme: str) -> None:
    document = result.analysis.document()
    report.write_report(wide(document, 60), tmp_path / "inspect.html")
    tab = Tab(browser, tmp_path / "inspect.html", width=PHONE, scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE
    assert tab.evaluate(WIDER) == []
    assert tab.evaluate(CONTRAST)[1] == []
    assert tab.complaints() == []


def test_light_and_dark_differ(browser: Browser, page: Path) -> None:
    script = "getComputedStyle(document.body).backgroundColor"
    light, dark = (Tab(browser, page, scheme=scheme).evaluate(script) for scheme in ("light", "dark"))
    assert light == "rgb(255, 255, 255)"
    assert dark == "rgb(20, 23, 27)"


def test_it_prints_on_white_with_all_that_is_folded(browser: Browser, page: Path) -> None:
    tab = Tab(browser, page, scheme="dark")
    assert not tab.evaluate("[...document.querySelectorAll('details td')].some(one => one.checkVisibility())")
    tab.print_media()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("[...document.querySelectorAll('details td')].every(one => one.checkVisibility())")
    printed = base64.b64decode(tab.send("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])
    assert printed.startswith(b"%PDF-")
    assert printed.count(b"/Type /Page\n") >= 2 or printed.count(b"/Type /Page") >= 2


def test_those_who_cannot_see_it_are_told(browser: Browser, page: Path) -> None:
    tab = Tab(browser, page)
    assert tab.evaluate("document.documentElement.lang") == "en"
    assert tab.evaluate(
        "[...document.querySelectorAll('svg')].every(one => one.getAttribute('aria-label').length > 10)"
    )
    assert tab.evaluate("[...document.querySelectorAll('table')].every(one => one.caption && one.tHead)")
    assert tab.evaluate("[...document.querySelectorAll('th')].every(one => one.scope)")
    tree = tab.send("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert roles.count("heading") >= len(SECTIONS)
    assert "rowheader" in roles
    assert "columnheader" in roles
    assert "main" in roles


def test_the_checks_can_fail(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        "<body style='background:#fff'><p style='color:#bbb'>pale</p><div style='width:900px'>wide</div>"
        "<script>console.log('said')</script><img src='missing.png'></body>"
    )
    tab = Tab(browser, path, width=PHONE)
    assert tab.evaluate("document.documentElement.scrollWidth") > PHONE
    assert tab.evaluate(WIDER) == ["DIV"]
    assert tab.evaluate(CONTRAST)[1] == ["P. 1.92"]
    assert any("said" in one for one in tab.complaints())
    assert len(tab.requests()) == 2
