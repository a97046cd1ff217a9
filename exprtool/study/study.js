"use strict";
(() => {
  const study = JSON.parse(document.getElementById("study").textContent);
  const place = (id) => document.getElementById(id);
  const STORE = "exprtool-study-" + study.id;
  const SHOWN_MS = 260; // how long a choice is seen before the next question comes
  const served = location.protocol === "http:" || location.protocol === "https:";

  // ---------------------------------------------------------------- what is kept: a reload loses nothing
  let kept = true;
  const read = () => {
    try {
      const state = JSON.parse(localStorage.getItem(STORE));
      return state && state.study === study.id && typeof state.token === "string" ? state : null;
    } catch { return null; }
  };
  const keep = () => {
    state.revision += 1;
    try { localStorage.setItem(STORE, JSON.stringify(state)); } catch { kept = false; }
    place("unkept").hidden = kept;
    send();
  };
  const fresh = () => {
    const random = crypto.getRandomValues(new Uint8Array(16));
    const token = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return { study: study.id, token, name: "", revision: 0, at: 0, answers: {}, finished: false };
  };

  // ---------------------------------------------------------------- an order of their own for each rater
  const generator = (text) => { // xmur3 seeds mulberry32: small, public domain, and the same everywhere
    let h = 1779033703 ^ text.length;
    for (let i = 0; i < text.length; i++) {
      h = Math.imul(h ^ text.charCodeAt(i), 3432918353);
      h = (h << 13) | (h >>> 19);
    }
    let a = h >>> 0;
    return () => {
      a = (a + 0x6d2b79f5) | 0;
      let t = Math.imul(a ^ (a >>> 15), 1 | a);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  };
  const shuffled = (list, random) => {
    const copy = list.slice();
    for (let i = copy.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [copy[i], copy[j]] = [copy[j], copy[i]];
    }
    return copy;
  };
  const arrange = () => {
    const random = generator(study.id + state.token);
    order = shuffled(study.trials, random).map((trial) => ({ ...trial, options: shuffled(trial.options, random) }));
  };

  let state = read() || fresh();
  let order = [];
  arrange();
  const perTrial = study.questions.length;
  const total = study.trials.length * perTrial;
  const slot = (trial, question) => trial.id + " " + question.id;
  const answered = () => Object.keys(state.answers).length;

  // ---------------------------------------------------------------- what is seen
  let since = performance.now();
  let waiting = 0;

  const show = (id) => {
    for (const each of ["welcome", "trial", "end"]) place(each).hidden = each !== id;
    document.querySelector("header").hidden = id === "welcome";
    place("count").hidden = id !== "trial";
  };
  const progress = () => {
    const share = Math.round((100 * answered()) / total);
    place("bar").setAttribute("aria-valuenow", String(share));
    place("bar").firstElementChild.style.width = share + "%";
  };
  const current = () => ({
    trial: order[Math.floor(state.at / perTrial)],
    question: study.questions[state.at % perTrial],
  });

  const drawOptions = (trial) => {
    const room = place("options");
    room.replaceChildren();
    const few = trial.options.length <= 4;
    const columns = few ? trial.options.length : Math.ceil(trial.options.length / 2);
    place("trial").style.setProperty("--columns", String(columns));
    place("trial").style.setProperty("--room", columns * 1.05 + "fr"); // the original as large as the others
    room.classList.toggle("many", trial.options.length > 6);
    trial.options.forEach((option, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "option";
      button.dataset.option = option.id;
      button.setAttribute("role", "radio");
      button.setAttribute("aria-label", "Picture " + (i + 1));
      const image = document.createElement("img");
      image.src = option.picture;
      image.alt = "";
      image.draggable = false;
      const number = document.createElement("span");
      number.className = "number";
      number.textContent = String(i + 1);
      button.append(image, number);
      button.addEventListener("click", () => choose(option.id));
      room.append(button);
    });
    place("original").src = trial.original;
    room.dataset.trial = trial.id;
  };

  const render = () => {
    progress();
    if (!state.name) { show("welcome"); return; }
    if (state.at >= total) { finish(); return; }
    show("trial");
    const { trial, question } = current();
    if (place("options").dataset.trial !== trial.id) drawOptions(trial);
    const before = state.answers[slot(trial, question)];
    for (const button of place("options").children) {
      const chosen = Boolean(before) && before.option === button.dataset.option;
      button.setAttribute("aria-checked", String(chosen));
      button.querySelector(".number").textContent = (chosen ? "\u2713 " : "") +
        (Array.from(place("options").children).indexOf(button) + 1);
    }
    const [head, tail] = question.text.split("{expression}");
    const wanted = document.createElement("b");
    wanted.textContent = trial.expression;
    place("question").replaceChildren(head, ...(tail === undefined ? [] : [wanted, tail]));
    place("hint").textContent = question.hint;
    place("step").textContent = "Question " + ((state.at % perTrial) + 1) + " of " + perTrial;
    place("count").textContent = (Math.floor(state.at / perTrial) + 1) + " of " + order.length;
    place("back").disabled = state.at === 0;
    place("next").disabled = !before;
    document.body.dataset.trial = trial.id;
    document.body.dataset.question = question.id;
    since = performance.now();
  };

  const go = (where) => {
    clearTimeout(waiting);
    waiting = 0;
    const trialBefore = Math.floor(state.at / perTrial);
    state.at = Math.max(0, Math.min(total, where));
    keep();
    render();
    if (Math.floor(state.at / perTrial) !== trialBefore) window.scrollTo(0, 0);
    if (state.at < total && !document.activeElement.closest("#options")) place("question").focus({ preventScroll: true });
  };

  const choose = (option) => {
    if (waiting) return; // a second tap on the picture that was just chosen is no answer to the next question
    const { trial, question } = current();
    const before = state.answers[slot(trial, question)];
    state.answers[slot(trial, question)] = {
      trial: trial.id,
      question: question.id,
      option,
      position: trial.options.findIndex((each) => each.id === option) + 1,
      seconds: Math.round((performance.now() - since) / 100) / 10 + (before ? before.seconds : 0),
      at: new Date().toISOString(),
    };
    keep();
    render();
    waiting = setTimeout(() => go(state.at + 1), SHOWN_MS);
  };

  const finish = () => {
    // Whoever went to the end past an open question is brought back to it.
    for (let i = 0; i < total; i++) {
      const trial = order[Math.floor(i / perTrial)];
      if (!state.answers[slot(trial, study.questions[i % perTrial])]) { go(i); return; }
    }
    if (!state.finished) { state.finished = true; keep(); }
    show("end");
    place("thanks").textContent = "Thank you, " + state.name;
    place("complete").textContent = "All " + total + " answers are in.";
    if (!served) say("Please save them as a file and hand it in.", "");
    place("save").classList.toggle("main", !served);
    place("thanks").focus({ preventScroll: true });
  };

  // ---------------------------------------------------------------- handing in
  const payload = () => ({
    format: "exprtool-study-answers/1",
    study: state.study, token: state.token, name: state.name, revision: state.revision, finished: state.finished,
    answers: Object.values(state.answers),
  });
  const say = (text, kind) => {
    place("state").textContent = text;
    place("state").className = "state " + kind;
  };
  let sending = false;
  let sent = -1;
  const send = async () => {
    if (!served || sending || !state.name || !answered()) return;
    sending = true;
    try {
      while (sent !== state.revision) {
        const body = payload();
        if (state.finished) say("Sending \u2026", "");
        const answer = await fetch("answers", {
          method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
          credentials: "omit", cache: "no-store",
        });
        if (!answer.ok) throw new Error(await answer.text());
        sent = body.revision;
      }
      if (state.finished) say("Your answers have arrived. You can close this page.", "good");
      place("again").hidden = true;
    } catch (error) {
      if (state.finished) {
        say("The answers could not be sent. They are kept here: send them again, or save them as a file.", "bad");
        place("again").hidden = false;
      }
    } finally {
      sending = false;
    }
  };

  const cell = (value) => {
    let text = String(value);
    if (/^[=+\-@\t\r]/.test(text)) text = "'" + text; // a spreadsheet would take it for a formula
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  const csv = () => {
    const columns = ["study", "token", "name", "trial", "question", "option", "position", "seconds", "at"];
    const lines = Object.values(state.answers).map((answer) =>
      columns.map((column) => cell(answer[column] ?? state[column])).join(","));
    return [columns.join(","), ...lines].join("\r\n") + "\r\n";
  };
  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    const name = state.name.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "").toLowerCase();
    link.download = "answers-" + (name || "rater") + "-" + state.token.slice(0, 8) + ".csv";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };

  // ---------------------------------------------------------------- what people do
  place("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = place("name").value.trim();
    if (!name) return;
    state.name = name;
    go(state.at);
  });
  place("back").addEventListener("click", () => go(state.at - 1));
  place("next").addEventListener("click", () => { if (!place("next").disabled) go(state.at + 1); });
  place("save").addEventListener("click", save);
  place("again").addEventListener("click", send);
  place("review").addEventListener("click", () => go(0));
  place("another").addEventListener("click", () => {
    const lost = served ? sent !== state.revision : true;
    if (lost && !confirm("Have these answers been saved? Beginning anew removes them from this browser.")) return;
    state = fresh();
    sent = -1;
    arrange();
    place("name").value = "";
    keep();
    render();
    place("name").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (place("trial").hidden || event.ctrlKey || event.altKey || event.metaKey) return;
    const options = current().trial.options;
    const number = Number(event.key);
    if (Number.isInteger(number) && number >= 1 && number <= options.length) {
      choose(options[number - 1].id);
    } else if (event.key === "ArrowLeft" || event.key === "Backspace") {
      if (state.at > 0) go(state.at - 1);
    } else if (event.key === "ArrowRight") {
      if (!place("next").disabled) go(state.at + 1);
    } else {
      return;
    }
    event.preventDefault();
  });
  window.addEventListener("online", send);

  try { localStorage.setItem(STORE + "-probe", "1"); localStorage.removeItem(STORE + "-probe"); } catch { kept = false; }
  place("unkept").hidden = kept;
  render();
  send();
})();
