"use strict";

// Everything is readable without this script: it chooses, it does not show.

// The ways of the node that the pointer or the keyboard is on stand out from the others.
for (const map of document.querySelectorAll(".map svg")) {
  const choose = (node) => {
    map.classList.toggle("chosen", node !== null);
    for (const way of map.querySelectorAll(".way")) {
      way.classList.toggle("on", node !== null && (way.dataset.a === node || way.dataset.b === node));
    }
  };
  for (const chip of map.querySelectorAll(".chip")) {
    chip.addEventListener("pointerenter", () => choose(chip.dataset.node));
    chip.addEventListener("focus", () => choose(chip.dataset.node));
    chip.addEventListener("pointerleave", () => choose(null));
    chip.addEventListener("blur", () => choose(null));
  }
}

// A link to a node opens its section.
const openTarget = () => {
  const target = document.getElementById(location.hash.slice(1));
  if (target !== null && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", openTarget);
openTarget();

// On paper nothing can be opened.
addEventListener("beforeprint", () => {
  for (const node of document.querySelectorAll("details.node")) {
    node.dataset.open = node.open ? "yes" : "no";
    node.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const node of document.querySelectorAll("details.node")) {
    node.open = node.dataset.open === "yes";
  }
});

const filter = document.getElementById("filter");
if (filter !== null) {
  const nodes = [...document.querySelectorAll("details.node")];
  const texts = nodes.map((node) => node.textContent.toLowerCase());
  const found = document.getElementById("found");
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    nodes.forEach((node, number) => {
      node.hidden = !texts[number].includes(wanted);
      shown += node.hidden ? 0 : 1;
    });
    found.textContent = wanted === "" ? "" : `${shown} of ${nodes.length} nodes`;
  });
}
