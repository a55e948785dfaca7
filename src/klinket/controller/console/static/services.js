// The page of a new key: saving it as a file, and forgetting it when the page is left.
"use strict";
(() => {
  const shown = document.querySelector("[data-forget]");
  const text = document.getElementById("key-text");
  for (const button of document.querySelectorAll("[data-save]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const address = URL.createObjectURL(new Blob([document.getElementById(button.dataset.save).textContent + "\n"], { type: "application/json" }));
      const link = document.createElement("a");
      link.href = address;
      link.download = button.dataset.file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 10000);
    });
  }
  // Loading this page again shows the service instead of sending the form once more; going back to it shows no key.
  history.replaceState(null, "", shown.dataset.forget);
  addEventListener("pagehide", () => { text.textContent = "The key is not shown any more."; });
})();
