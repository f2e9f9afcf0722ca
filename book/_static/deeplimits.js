// Without this file every page can be read; it adds three comforts.

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
