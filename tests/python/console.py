"""Looks at every page of the fleet's console in a headless browser: `console.py BROWSER ADDRESS NAME PASSWORD [FOLDER]`.

By day and by night, on a desk and on a phone: what scripts complain of, text that is hard to read against what lies behind it,
pages wider than their window, controls that have no name or show no focus, and whether a page follows what changes. Standard
output gets what was found as a JSON object, whose lists are empty where all is well; FOLDER gets screenshots.
"""

import json
import os
import sys

from playwright.sync_api import sync_playwright

WAIT_MS = 30_000

PAGES = {
    "overview": "/",
    "devices": "/devices",
    "filter": "/devices?filter=tag+%3D",
    "device": "/devices/gate-01",
    "device-3d": "/devices/gate-01?span=3d",
    "models": "/models",
    "rollouts": "/rollouts",
    "rollout": "/rollouts/3",
    "halted": "/rollouts/2",
    "new-rollout": "/rollouts/new",
    "learning": "/learning",
    "run": "/learning/2",
    "run-of-devices": "/learning/4",
    "compare": "/learning/compare?run=1&run=2",
    "new-run": "/learning/new",
    "alerts": "/alerts",
    "audit": "/audit",
    "people": "/people",
    "enrolment": "/enrolment",
    "account": "/account",
}

LOOKS = {
    "light": {"viewport": {"width": 1360, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1360, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "has_touch": True},
    "phone-dark": {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True},
}

# Texts whose contrast is below WCAG's AA: 4.5, or 3 where they are large. A colour is what a canvas paints of it, over what
# lies behind.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (layers) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of layers) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  let seen = 0;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility({ visibilityProperty: true }) || element.closest("script, option")) continue;
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
    const style = getComputedStyle(element);
    const [front, behind] = [paint([...layers, style.color]), paint(layers)].map(light);
    const ratio = (Math.max(front, behind) + 0.05) / (Math.min(front, behind) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    seen += 1;
    if (ratio < (isLarge ? 3 : 4.5)) found.push(`${ratio.toFixed(2)}: ${texts.currentNode.data.trim().slice(0, 40)} (${element.className || element.tagName})`);
  }
  return { seen, found };
}"""

# Controls that nothing names, and ids that come twice.
NAMES = """() => {
  const named = (control) => control.getAttribute("aria-label") || control.labels?.length || control.textContent.trim() || control.querySelector("img[alt]");
  const controls = [...document.querySelectorAll("a, button, summary, select, input:not([type=hidden])")];
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  return [
    ...controls.filter((control) => !named(control) && control.autocomplete !== "username").map((control) => control.outerHTML.slice(0, 120)),
    ...ids.filter((id, index) => ids.indexOf(id) !== index).map((id) => `#${id} comes twice`),
    ...[...document.querySelectorAll("svg:not([aria-hidden]), img")].filter((picture) => !picture.getAttribute("aria-label") && !picture.alt).map((picture) => picture.outerHTML.slice(0, 80)),
  ];
}"""

FOCUS = """() => {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const style = getComputedStyle(at);
  const shows = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return { what: at.id || at.textContent.trim().slice(0, 30) || at.name || at.tagName, tag: at.tagName, shows };
}"""


def main(browser, address, name, password, folder=None):
    found = {"errors": [], "contrast": [], "wide": [], "unnamed": [], "focus": []}
    texts = 0
    with sync_playwright() as playwright:
        # As root, which is how containers run, a browser has no sandbox of its own.
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for look, settings in LOOKS.items():
            page = chromium.new_context(**settings).new_page()
            page.set_default_timeout(WAIT_MS)
            page.on("pageerror", lambda error: found["errors"].append(str(error)))
            page.on("console", lambda said: found["errors"].append(said.text) if said.type in ("error", "warning") else None)
            page.on("response", lambda got: found["errors"].append(f"{got.status} {got.url}") if got.status >= 400 else None)

            def check(place):
                nonlocal texts
                contrast = page.evaluate(CONTRAST)
                texts += contrast["seen"]
                found["contrast"] += [f"{place}, {look}: {text}" for text in contrast["found"]]
                found["unnamed"] += [f"{place}: {text}" for text in page.evaluate(NAMES)]
                width = page.evaluate("document.documentElement.scrollWidth")
                if width > settings["viewport"]["width"]:
                    found["wide"].append(f"{place}, {look}: {width}")
                if folder:
                    page.screenshot(path=os.path.join(folder, f"{place}-{look}.png"), full_page=not look.startswith("phone"))

            page.goto(f"{address}/signin", wait_until="load")
            check("sign-in")
            page.fill("[name=name]", name)
            page.fill("[name=password]", password)
            page.keyboard.press("Enter")
            page.wait_for_url(f"{address}/")
            for place, path in PAGES.items():
                # A stream of changes stays open, so that the network never falls idle.
                page.goto(address + path, wait_until="load")
                check(place)

        # The keyboard alone: first the way past the menu, then everything, each with its focus to be seen.
        page = chromium.new_context(**LOOKS["light"], storage_state=page.context.storage_state()).new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(f"{address}/devices/gate-01", wait_until="load")
        order = []
        for _ in range(200):
            page.keyboard.press("Tab")
            focus = page.evaluate(FOCUS)
            if focus is None:
                break
            order.append(focus["what"])
            if not focus["shows"]:
                found["focus"].append(focus["what"])
        page.goto(f"{address}/devices", wait_until="load")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        skipped = page.evaluate("document.activeElement.id")

        # The page is not loaded again, and still follows: somebody else asks the device for something.
        page.goto(f"{address}/devices/hall-01", wait_until="load")
        page.evaluate("document.body.dataset.kept = 'yes'")
        other = page.context.new_page()
        other.goto(f"{address}/devices/hall-01", wait_until="load")
        other.click("text=Restart the pipeline")
        other.wait_for_url("**done=command")
        other.close()
        page.bring_to_front()
        # The policy of the page lets nobody evaluate texts, so that what is waited for is a selector.
        page.locator("body[data-kept] #commands li").first.wait_for()
        page.goto(f"{address}/rollouts/new", wait_until="load")
        page.fill("[name=filter]", "tag = dock")
        page.locator("#preview", has_text="9 devices").wait_for()
        chromium.close()
    print(json.dumps({**found, "texts": texts, "first": order[:1], "controls": len(order), "skipped": skipped}))


if __name__ == "__main__":
    main(*sys.argv[1:])
