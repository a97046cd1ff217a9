"use strict";
(() => {
  const gallery = document.getElementById("gallery");
  const articles = Array.from(gallery.querySelectorAll("article"));
  const search = document.getElementById("search");
  const shown = document.getElementById("shown");
  const none = document.getElementById("none");
  const filters = Array.from(document.querySelectorAll("[data-filter]"));
  const dialog = document.getElementById("large");
  const room = dialog.querySelector(".room");
  let status = "all";
  let current = null;

  const move = (input) => {
    const compare = input.closest(".compare");
    compare.style.setProperty("--pos", input.value + "%");
    input.setAttribute("aria-valuetext", input.value + " % before, " + (100 - input.value) + " % after");
  };
  document.addEventListener("input", (event) => {
    if (event.target.matches(".compare input")) move(event.target);
  });

  const filter = () => {
    const words = search.value.trim().toLowerCase();
    let count = 0;
    for (const article of articles) {
      const fits = (status === "all" || article.dataset.status === status) && article.dataset.name.includes(words);
      article.hidden = !fits;
      count += fits ? 1 : 0;
    }
    none.hidden = count > 0;
    shown.textContent = count === articles.length ? "" : count + " of " + articles.length + " shown";
  };
  for (const button of filters) {
    button.addEventListener("click", () => {
      status = button.dataset.filter;
      for (const other of filters) other.setAttribute("aria-pressed", String(other === button));
      filter();
    });
  }
  search.addEventListener("input", filter);
  document.getElementById("boxes").addEventListener("change", (event) => {
    document.body.classList.toggle("show-boxes", event.target.checked);
  });
  // A link to a photo that the filter hides has to show it.
  const reveal = () => {
    const wanted = document.getElementById(location.hash.slice(1));
    if (!wanted || !wanted.hidden) return;
    search.value = "";
    filters[0].click();
    wanted.scrollIntoView();
  };
  window.addEventListener("hashchange", reveal);

  const withPicture = () => articles.filter((article) => !article.hidden && article.querySelector(".compare, .single"));
  const show = (article) => {
    current = article;
    const copy = article.querySelector(".compare, .single").cloneNode(true);
    for (const image of copy.querySelectorAll("img")) image.loading = "eager";
    room.replaceChildren(copy);
    document.getElementById("large-name").textContent = article.querySelector("h3").textContent;
    if (!dialog.open) dialog.showModal();
    const input = copy.querySelector("input");
    if (input) input.focus();
  };
  const step = (by) => {
    const all = withPicture();
    const place = all.indexOf(current);
    if (all.length) show(all[(place + by + all.length) % all.length]);
  };
  const setTo = (value) => {
    const input = room.querySelector("input");
    if (!input) return;
    input.value = value;
    move(input);
  };
  const actions = {
    before: () => setTo(100), after: () => setTo(0), previous: () => step(-1), next: () => step(1), close: () => dialog.close(),
  };
  gallery.addEventListener("click", (event) => {
    const button = event.target.closest(".enlarge");
    if (button) show(button.closest("article"));
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) actions[button.dataset.do]();
  });
  dialog.addEventListener("keydown", (event) => {
    const action = { b: "before", a: "after", PageUp: "previous", PageDown: "next" }[event.key];
    if (!action) return;
    event.preventDefault();
    actions[action]();
  });
  dialog.addEventListener("close", () => {
    room.replaceChildren();
    if (current) current.querySelector(".enlarge").focus();
  });
})();
