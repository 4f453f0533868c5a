"use strict";
(() => {
  const root = document.documentElement;
  root.classList.remove("no-script");
  const byId = (id) => document.getElementById(id);
  const all = (selector, node = document) => [...node.querySelectorAll(selector)];
  const chips = all('input[name="class"]');
  const cards = all(".card").map((card) => ({
    card,
    // The first picture of a card is the file's; the others are variants of it.
    instances: all(".frame", card).flatMap((frame, place) =>
      all(".instance", frame).map((node) => ({
        node,
        original: place === 0,
        label: frame.querySelector(`.label[data-number="${node.dataset.number}"]`),
        rows: place === 0 ? all(`tr[data-number="${node.dataset.number}"]`, card) : [],
      }))),
  }));

  // The filters live in the address, so that what one sees can be sent to somebody else:
  // #class=person&class=dog&min=32&max=96&kind=crowd&image=42
  const read = () => new URLSearchParams(location.hash.slice(1));

  const write = () => {
    const wanted = new URLSearchParams();
    for (const chip of chips) if (chip.checked) wanted.append("class", chip.value);
    for (const id of ["min", "max", "kind"]) if (byId(id).value) wanted.set(id, byId(id).value);
    history.replaceState(null, "", "#" + wanted);
    apply();
  };

  const apply = () => {
    const wanted = read();
    const classes = new Set(wanted.getAll("class"));
    const number = (key) => (/^[0-9.]+$/.test(wanted.get(key) || "") ? Number(wanted.get(key)) : NaN);
    const min = number("min"), max = number("max");
    const kind = wanted.get("kind") || "", image = wanted.get("image");
    for (const chip of chips) chip.checked = classes.has(chip.value);
    byId("min").value = Number.isNaN(min) ? "" : min;
    byId("max").value = Number.isNaN(max) ? "" : max;
    byId("kind").value = kind;
    const filtered = classes.size > 0 || !Number.isNaN(min) || !Number.isNaN(max) || kind !== "";
    let images = 0, shown = 0, total = 0;
    for (const { card, instances } of cards) {
      let matches = 0;
      for (const { node, label, rows, original } of instances) {
        const size = Number(node.dataset.size), crowd = node.dataset.crowd === "1";
        const fits = (!classes.size || classes.has(node.dataset.class)) &&
          !(size < min) && !(size >= max) && kind !== "none" && (kind === "" || crowd === (kind === "crowd"));
        node.toggleAttribute("hidden", !fits);
        if (label) label.toggleAttribute("hidden", !fits);
        for (const row of rows) row.hidden = !fits;
        if (original) { total += 1; matches += fits; }
      }
      const empty = !instances.some((one) => one.original);
      let visible = !filtered || matches > 0 || (kind === "none" && empty);
      if (image !== null && card.dataset.image !== image) visible = false;
      card.hidden = !visible;
      images += visible;
      if (visible) shown += matches;
    }
    byId("status").textContent = `${images} of ${cards.length} images, ${shown} of ${total} instances`;
    byId("nothing").hidden = images > 0;
    byId("reset").hidden = !filtered && image === null;
  };

  const pin = (entry, on) => {
    entry.node.classList.toggle("pinned", on);
    if (entry.label) entry.label.classList.toggle("lit", on);
    for (const row of entry.rows) row.classList.toggle("pinned", on);
  };
  const unpin = () => {
    for (const { instances } of cards)
      for (const entry of instances) if (entry.node.classList.contains("pinned")) pin(entry, false);
  };
  for (const { card, instances } of cards) {
    for (const entry of instances) {
      const choose = (fromPicture) => {
        const before = entry.node.classList.contains("pinned");
        unpin();
        pin(entry, !before);
        const details = card.querySelector("details");
        if (fromPicture && !before && entry.rows.length && details) {
          details.open = true;
          entry.rows[0].scrollIntoView({ block: "nearest" });
        }
      };
      entry.node.addEventListener("click", () => choose(true));
      entry.node.addEventListener("mouseenter", () => entry.label && entry.label.classList.add("lit"));
      entry.node.addEventListener("mouseleave", () =>
        entry.label && entry.label.classList.toggle("lit", entry.node.classList.contains("pinned")));
      const button = entry.rows.length && entry.rows[0].querySelector(".pin");
      if (button) button.addEventListener("click", () => choose(false));
    }
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") unpin(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const control of [...chips, byId("min"), byId("max"), byId("kind")]) control.addEventListener("change", write);
  for (const button of all("[data-min]"))
    button.addEventListener("click", () => {
      byId("min").value = button.dataset.min;
      byId("max").value = button.dataset.max;
      write();
    });
  byId("reset").addEventListener("click", () => {
    history.replaceState(null, "", "#");
    apply();
  });
  window.addEventListener("hashchange", apply);
  apply();
})();
