// Has regions of a page follow what changes, and saves people a few steps. Every page works without it.
"use strict";

(() => {
  // Between two looks at the service, however much changes.
  const LOOK_EVERY_MS = 1000;
  const AGO_EVERY_MS = 10_000;
  const PREVIEW_AFTER_MS = 300;

  // Which regions a change is for: `data-live="device:gate-7 alert"` names changes, of one thing or of all.
  const regions = () => [...document.querySelectorAll("[data-live][id]")];
  const concerns = (region, change) =>
    change.change === "missed" ||
    region.dataset.live.split(" ").some((wanted) => {
      const [kind, name] = wanted.split(":");
      return kind === change.change && (name === undefined || name === String(change.device ?? change.rollout ?? change.run));
    });

  let source = null;
  let stale = new Set();
  let timer = null;
  let pause = LOOK_EVERY_MS;

  const look = async () => {
    timer = null;
    const wanted = stale;
    stale = new Set();
    const began = performance.now();
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
      // Whoever is not signed in any more is led to where that is done.
      if (answer.redirected) return location.reload();
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of wanted) replace(document.getElementById(id), page.getElementById(id));
    } catch {
      // The service is away; the stream of changes says when it is back.
    } finally {
      // A service that is slow is asked less often.
      pause = Math.max(LOOK_EVERY_MS, 5 * (performance.now() - began));
      if (stale.size > 0) schedule();
    }
  };

  const replace = (old, fresh) => {
    if (!old || !fresh || old.innerHTML === fresh.innerHTML) return;
    // What somebody is using is not taken from under their hands.
    if (old.querySelector("details[open]") || (old.contains(document.activeElement) && document.activeElement.closest("form"))) return;
    const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    old.replaceChildren(...fresh.childNodes);
    if (focused) old.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    tellTimes();
  };

  const schedule = () => {
    timer ??= setTimeout(look, pause);
  };

  const changed = (change) => {
    for (const region of regions()) if (concerns(region, change)) stale.add(region.id);
    if (stale.size > 0) schedule();
  };

  const watch = () => {
    if (source || document.hidden || regions().length === 0) return;
    let wasOpen = false;
    source = new EventSource("/api/v1/live");
    // What changed while nobody listened was missed.
    source.onopen = () => {
      if (wasOpen) changed({ change: "missed" });
      wasOpen = true;
    };
    source.onmessage = (message) => changed(JSON.parse(message.data));
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      source?.close();
      source = null;
      return;
    }
    changed({ change: "missed" });
    watch();
  });

  const distance = (seconds) => {
    const [past, size] = [seconds >= 0, Math.abs(seconds)];
    if (size < 1) return "now";
    const text =
      size < 60 ? `${Math.floor(size)} s` : size < 3600 ? `${Math.floor(size / 60)} min`
      : size < 172_800 ? `${Math.floor(size / 3600)} h` : `${Math.floor(size / 86_400)} days`;
    return past ? `${text} ago` : `in ${text}`;
  };

  const tellTimes = () => {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const text = distance((Date.now() - Date.parse(time.dateTime)) / 1000);
      if (time.textContent !== text) time.textContent = text;
    }
  };

  // How many devices a filter means, while it is typed.
  for (const input of document.querySelectorAll("input[data-preview]")) {
    let waiting = null;
    let newest = 0;
    input.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(async () => {
        const number = ++newest;
        const answer = await fetch(`${input.dataset.preview}?filter=${encodeURIComponent(input.value)}`).catch(() => null);
        if (!answer?.ok || answer.redirected || number !== newest) return;
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        document.getElementById(input.getAttribute("aria-describedby"))?.replaceChildren(...page.body.childNodes);
      }, PREVIEW_AFTER_MS);
    });
  }

  for (const input of document.querySelectorAll("input[data-select]")) {
    input.addEventListener("focus", () => input.select());
  }

  // What is sent twice is done twice.
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });

  setInterval(tellTimes, AGO_EVERY_MS);
  watch();
})();
