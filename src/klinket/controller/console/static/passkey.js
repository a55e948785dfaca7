// Passkeys: asks the browser, puts its answer into the form, sends the form. Links: takes the code behind the # into the form.
"use strict";
(() => {
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const credentials = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  const make = async (options) => {
    const made = await navigator.credentials.create({
      publicKey: {
        ...options,
        challenge: bytes(options.challenge),
        user: { ...options.user, id: bytes(options.user.id) },
        excludeCredentials: credentials(options.excludeCredentials),
      },
    });
    return {
      id: made.id, rawId: text(made.rawId), type: made.type,
      response: {
        clientDataJSON: text(made.response.clientDataJSON),
        attestationObject: text(made.response.attestationObject),
        transports: made.response.getTransports ? made.response.getTransports() : [],
      },
    };
  };

  const ask = async (options) => {
    const got = await navigator.credentials.get({
      publicKey: { ...options, challenge: bytes(options.challenge), allowCredentials: credentials(options.allowCredentials) },
    });
    const handle = got.response.userHandle;
    return {
      id: got.id, rawId: text(got.rawId), type: got.type,
      response: {
        clientDataJSON: text(got.response.clientDataJSON),
        authenticatorData: text(got.response.authenticatorData),
        signature: text(got.response.signature),
        ...(handle && handle.byteLength ? { userHandle: text(handle) } : {}),
      },
    };
  };

  const WHY = {
    NotAllowedError: "It was cancelled, or took too long. Try again.",
    InvalidStateError: "This device is registered already.",
    SecurityError: "The browser does not allow passkeys at this address.",
    NotSupportedError: "This device makes no passkeys of a kind that is taken here.",
  };

  for (const form of document.querySelectorAll("form[data-passkey]")) {
    const button = form.querySelector("[data-passkey-button]");
    const note = form.querySelector("[data-passkey-note]");
    if (!window.PublicKeyCredential) { note.textContent = "This browser has no passkeys."; continue; }
    note.textContent = "";
    button.disabled = false;
    form.addEventListener("submit", async (event) => {
      if (form.elements.answer.value) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      if (button.disabled) return;
      button.disabled = true;
      note.classList.remove("wrong");
      note.textContent = "Waiting for your device…";
      try {
        const options = JSON.parse(form.dataset.options);
        const answer = form.dataset.passkey === "create" ? await make(options) : await ask(options);
        form.elements.answer.value = JSON.stringify(answer);
        button.disabled = false;
        form.requestSubmit(button);
      } catch (error) {
        note.textContent = WHY[error.name] || "The device did not answer. Try again.";
        note.classList.add("wrong");
        button.disabled = false;
      }
    });
  }

  const field = document.querySelector("[data-from-fragment]");
  const take = () => {
    if (!field || location.hash.length < 2) return;
    field.value = location.hash.slice(1);
    history.replaceState(null, "", location.pathname + location.search); // it stays in no history
    field.form.requestSubmit();
  };
  addEventListener("hashchange", take);
  take();
})();
