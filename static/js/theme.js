// Runs before the first paint, so that a remembered theme never flashes the other one.
"use strict";
(() => {
  const root = document.documentElement;
  root.dataset.js = "";

  const remembered = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // storage is blocked: the system's preference decides
    }
  };
  const theme = remembered();
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;

  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element) || !event.target.closest("[data-theme-toggle]")) return;
    const systemIsDark = matchMedia("(prefers-color-scheme: dark)").matches;
    const current = root.dataset.theme ?? (systemIsDark ? "dark" : "light");
    root.dataset.theme = current === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // storage is blocked: the choice lasts for this page
    }
  });

  // On a phone the strip of tabs is wider than the page: bring the chosen one into view.
  document.addEventListener("DOMContentLoaded", () => {
    for (const chosen of document.querySelectorAll(".tabs [aria-current=page]")) {
      chosen.scrollIntoView({ block: "nearest", inline: "center", behavior: "instant" });
    }
  });
})();
