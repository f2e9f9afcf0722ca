// Without this file every page can be read; it adds some comforts.

// Who comes for a section that has moved is sent on; a card that is asked for opens.
function follow() {
  const anchor = decodeURIComponent(location.hash.slice(1));
  const list = document.getElementById("moved");
  const found = anchor && document.getElementById(anchor);
  if (found) {
    found.closest("details")?.setAttribute("open", "");
    found.scrollIntoView();
  } else if (anchor && list) {
    const address = JSON.parse(list.textContent)[anchor];
    if (address) location.replace(address);
  }
}
document.addEventListener("DOMContentLoaded", follow);
window.addEventListener("hashchange", follow);

// The ledger shows all claims; two boxes choose among them. `?verdict=differs` does, too.
function filterClaims(place) {
  const rows = [...document.querySelectorAll("tr[class*=paper-]")];
  const wanted = new URLSearchParams(location.search);
  const shown = document.createElement("span");
  shown.setAttribute("role", "status");
  const kinds = { paper: "paper-", verdict: "claim-" };
  const value = (row, prefix) =>
    [...row.classList].find((name) => name.startsWith(prefix)).slice(prefix.length);
  const boxes = Object.entries(kinds).map(([kind, prefix]) => {
    const label = document.createElement("label");
    const box = document.createElement("select");
    const values = new Set(rows.map((row) => value(row, prefix)));
    box.append(new Option("all", ""));
    for (const one of values) box.append(new Option(one.replaceAll("-", " "), one));
    if (values.has(wanted.get(kind))) box.value = wanted.get(kind);
    label.append(`${kind} `, box);
    place.append(label);
    return [box, prefix];
  });
  function choose() {
    for (const row of rows) {
      row.hidden = boxes.some(([box, p]) => box.value && box.value !== value(row, p));
    }
    shown.textContent = `${rows.filter((row) => !row.hidden).length} claims`;
  }
  place.append(shown);
  place.addEventListener("change", choose);
  choose();
}
document.addEventListener("DOMContentLoaded", () => {
  const place = document.querySelector(".claims-filter");
  if (place) filterClaims(place);
});

// A short word of code is not broken at its hyphens; a long one may be, on a phone.
document.addEventListener("DOMContentLoaded", () => {
  for (const word of document.querySelectorAll("code .pre")) {
    word.classList.toggle("short", word.textContent.length <= 20);
  }
});

// On paper proofs are open, whatever the screen shows.
const proofs = "details.sd-dropdown:not(.claim, .solution)";
window.addEventListener("beforeprint", () => {
  for (const proof of document.querySelectorAll(proofs)) {
    if (!proof.open) {
      proof.open = true;
      proof.dataset.printed = "";
    }
  }
});
window.addEventListener("afterprint", () => {
  for (const proof of document.querySelectorAll("details[data-printed]")) {
    proof.open = false;
    delete proof.dataset.printed;
  }
});

// Names: of buttons that scripts make, and of a part of the page that has none.
function nameParts() {
  for (const button of document.querySelectorAll("button.toggle-button")) {
    const title = button.closest(".admonition-title")?.textContent.trim();
    if (title) button.setAttribute("aria-label", title);
  }
  for (const icon of document.querySelectorAll(".theme-switch-button :is(i, svg)")) {
    icon.setAttribute("aria-hidden", "true");
    icon.removeAttribute("title");
    icon.removeAttribute("aria-labelledby");
    icon.querySelector("title")?.remove();
  }
  for (const caret of document.querySelectorAll(".bd-links summary")) {
    const page = caret.closest("li").querySelector("a").textContent.trim();
    caret.setAttribute("aria-label", `Parts of “${page}”`);
  }
  document.querySelector(".search-button-field")?.removeAttribute("aria-label");
  const side = document.querySelector(".bd-sidebar-primary");
  side?.setAttribute("role", "region");
  side?.setAttribute("aria-label", "The book");
}
document.addEventListener("DOMContentLoaded", () => {
  nameParts();
  // on paper the title has its number, too
  const title = document.querySelector("#jb-print-docs-body > h1");
  const number = document.querySelector("article h1 .section-number");
  if (title && number) title.prepend(number.cloneNode(true));
  const later = new MutationObserver(nameParts); // icons become pictures, with a title
  for (const button of document.querySelectorAll(".theme-switch-button")) {
    later.observe(button, { childList: true });
  }
});
window.addEventListener("load", nameParts);

// What scrolls can be reached by the keyboard, and nothing else of its kind: looked at
// again whenever a box changes its size, as it does when it is unfolded.
const boxes = "article :is(pre, table, .scroll-x, .math, mjx-container, .output, " +
  ".cell_output, .pst-scrollable-table-container, .sd-card-body)";
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const scrolls = ["auto", "scroll"].includes(getComputedStyle(target).overflowX) &&
      (target.clientWidth + 1 < target.scrollWidth ||
        target.clientHeight + 1 < target.scrollHeight);
    if (scrolls) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  for (const box of document.querySelectorAll(boxes)) sizes.observe(box);
});

// Results of a search show formulas as words: no private macro, no braces.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined" || !Search.htmlToText) return;
  const plain = Search.htmlToText;
  const words = (tex) => tex
    .replace(/\\(mathcal|mathbb|mathrm|mathbf|operatorname|text|left|right)\b/g, "")
    .replace(/\\infty\b/g, "∞").replace(/\\to\b/g, "→").replace(/\\le\b/g, "≤")
    .replace(/\\[()[\],;! ]/g, " ")
    .replace(/([A-Za-z])\{/g, "$1 ").replace(/[\\{}$]/g, "").replace(/\s+/g, " ");
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    for (const formula of page.querySelectorAll(".math")) {
      formula.textContent = words(formula.textContent);
    }
    return plain(page.documentElement.outerHTML, anchor);
  };
});
