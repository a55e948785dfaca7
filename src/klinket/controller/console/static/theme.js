// Dark or light, before anything is drawn. Without a choice it is the system's.
"use strict";
(() => {
  const chosen = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
