// What the console does in the browser beyond links and forms. Every page works without it.
"use strict";
(() => {
  const all = (selector, root = document) => root.querySelectorAll(selector);

  // ---- dark and light
  const switchTheme = () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    const next = dark ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("theme", next); } catch { /* it holds for this page only */ }
  };

  // ---- times: relative ones move on
  const units = [[365 * 86400, "y"], [30 * 86400, "mo"], [86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const relative = (then) => {
    const past = Date.now() >= then;
    const seconds = Math.floor(Math.abs(Date.now() - then) / 1000);
    if (seconds < 5) return "just now";
    const [span, unit] = units.find(([span]) => seconds >= span);
    const text = `${Math.floor(seconds / span)} ${unit}`;
    return past ? `${text} ago` : `in ${text}`;
  };
  const moveTimes = (root = document) => {
    for (const time of all("time[datetime]", root)) {
      const text = relative(Date.parse(time.dateTime));
      if (time.textContent !== text) time.textContent = text;
    }
  };

  // ---- parts that need script show themselves
  const prepare = (root) => {
    for (const hidden of all("[data-theme-switch], [data-copy], [data-close]", root)) hidden.hidden = false;
    moveTimes(root);
  };

  const copy = async (button) => {
    const source = document.getElementById(button.dataset.copy);
    const said = button.textContent;
    try {
      await navigator.clipboard.writeText(source.value ?? source.textContent);
      button.textContent = "Copied";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { button.textContent = said; }, 2000);
  };

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    if (target.closest("[data-theme-switch]")) switchTheme();
    const copying = target.closest("[data-copy]");
    if (copying) copy(copying);
    const closing = target.closest("[data-close]");
    if (closing) closing.closest("details").open = false;
    for (const menu of all("details.account[open]")) if (!menu.contains(target)) menu.open = false;
  });

  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const search = document.getElementById("search");
      if (search) { event.preventDefault(); search.focus(); search.select(); }
    }
    if (event.key === "Escape") {
      const open = event.target instanceof Element && event.target.closest("details.confirm[open], details.account[open]");
      if (open) { open.open = false; open.querySelector("summary").focus(); }
    }
  });

  // ---- search: arrows go through the results, Escape closes them
  const results = () => document.getElementById("search-found");
  const closeResults = () => { const found = results(); if (found) found.replaceChildren(); };
  document.addEventListener("keydown", (event) => {
    const found = results();
    const box = event.target instanceof Element && event.target.closest(".search, .results");
    if (!found || !box) return;
    const field = document.getElementById("search");
    const hits = [...all("[data-hit]", box)];
    const at = hits.indexOf(document.activeElement);
    if (event.key === "ArrowDown" && hits.length) { event.preventDefault(); hits[Math.min(at + 1, hits.length - 1)].focus(); }
    else if (event.key === "ArrowUp" && at >= 0) { event.preventDefault(); (at ? hits[at - 1] : field).focus(); }
    else if (event.key === "Escape" && found.childElementCount) { event.preventDefault(); closeResults(); field.focus(); }
  });
  document.addEventListener("pointerdown", (event) => { if (!(event.target instanceof Element && event.target.closest(".search"))) closeResults(); });
  document.addEventListener("focusin", (event) => { if (!(event.target instanceof Element && event.target.closest(".search"))) closeResults(); });

  // A form that was sent is not sent twice, and says that it is under way.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.sent && !event.defaultPrevented) { event.preventDefault(); return; }
    // An answer that is saved as a file leaves the page as it is.
    if (form.method === "post" && !form.hasAttribute("hx-post") && !event.submitter?.hasAttribute("data-download")) {
      form.dataset.sent = "yes";
      const button = event.submitter;
      if (button) button.setAttribute("aria-busy", "true");
    }
  });
  addEventListener("pageshow", () => {
    for (const form of all("form[data-sent]")) {
      delete form.dataset.sent;
      for (const button of all("[aria-busy]", form)) button.removeAttribute("aria-busy");
    }
  });

  // ---- live updates: a topic's name arrives, and parts with hx-trigger="live:TOPIC from:body" fetch themselves
  const TOPICS = ["inventory", "flows", "cuts", "connectors", "sessions"];
  const address = document.body.dataset.live;
  let source = null;
  const listen = () => {
    if (!address || source || document.hidden) return;
    source = new EventSource(address);
    for (const topic of TOPICS) {
      source.addEventListener(topic, () => {
        // Not while somebody types in, or has opened, a part that would be replaced.
        document.body.dispatchEvent(new CustomEvent(`live:${topic}`));
      });
    }
    source.addEventListener("over", () => location.reload());
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { if (source) { source.close(); source = null; } }
    else { listen(); for (const topic of TOPICS) document.body.dispatchEvent(new CustomEvent(`live:${topic}`)); }
  });
  // What a page fetches by itself is no use of the session: it does not keep an idle one alive.
  document.addEventListener("htmx:configRequest", (event) => {
    if (/live:|every |load/.test(event.detail.elt.getAttribute("hx-trigger") || "")) event.detail.headers["X-Klinket-Live"] = "1";
  });
  document.addEventListener("htmx:beforeRequest", (event) => {
    const part = event.detail.elt;
    const isLive = (part.getAttribute("hx-trigger") || "").includes("live:");
    if (isLive && (part.querySelector("details[open], :popover-open") || part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea"))) event.preventDefault();
  });
  // Nothing is redrawn that has not changed: no flicker, no lost selection.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const part = event.detail.target;
    if (event.detail.xhr.status >= 400 && part !== document.body) event.detail.shouldSwap = event.detail.xhr.responseText.includes('role="alert"') && !part.matches("[hx-trigger*='live:']");
    if (!part || !part.matches("[hx-trigger*='live:']")) return;
    const select = part.getAttribute("hx-select");
    const fresh = new DOMParser().parseFromString(event.detail.serverResponse, "text/html");
    const found = select ? fresh.querySelector(select) : fresh.body.firstElementChild;
    const plain = (element) => element && element.innerHTML.replace(/<time[^>]*>[^<]*<\/time>/g, (time) => time.replace(/>[^<]*</, "><")).replace(/\s+/g, " ");
    if (found && plain(found) === plain(part)) event.detail.shouldSwap = false;
  });
  document.addEventListener("htmx:afterSwap", (event) => prepare(event.detail.target.isConnected ? event.detail.target : document));

  prepare(document);
  listen();
  setInterval(moveTimes, 5000);
})();
