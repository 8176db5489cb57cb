"use strict";
// Loaded before the page is drawn, so that it does not flash in the other theme.
(() => {
  try {
    const kept = localStorage.getItem("theme");
    if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
  } catch {
    // storage is off: the browser's preference holds
  }
})();
