"use strict";
(function () {
  var ballot = null, place = 0, busy = false, films = {};
  var left = at("left"), right = at("right");
  function at(id) { return document.getElementById(id); }
  function say(id, text) { at(id).textContent = text; }
  function problem(text) { say("problem", text); at("problem").hidden = !text; }
  function steps() { return ballot.items.length * ballot.questions.length; }
  function spot(step) {
    var number = Math.floor(step / ballot.questions.length);
    return { number: number, item: ballot.items[number], question: ballot.questions[step % ballot.questions.length] };
  }
  function answered(step) { var here = spot(step); return here.question.name in here.item.answers; }
  function firstOpen() {
    for (var step = 0; step < steps(); step += 1) { if (!answered(step)) { return step; } }
    return steps();
  }
  function film(address) {
    if (!films[address]) {
      films[address] = fetch(address, { cache: "no-store" })
        .then(function (reply) { if (!reply.ok) { throw new Error("a clip is missing"); } return reply.blob(); })
        .then(function (blob) { return URL.createObjectURL(blob); });
      films[address].catch(function () { delete films[address]; });
    }
    return films[address];
  }
  function play(item) {
    if (left.dataset.film === item.left) { return; }
    left.dataset.film = item.left;
    Promise.all([film(item.left), film(item.right)]).then(function (sources) {
      if (left.dataset.film !== item.left) { return; }
      left.src = sources[0];
      right.src = sources[1];
      restart();
    }).catch(function (error) { problem(String(error.message || error)); });
  }
  function restart() {
    left.currentTime = right.currentTime = 0;
    [left, right].forEach(function (video) { video.play().catch(function () {}); });
  }
  // the left video leads: the right one is set to its time when they drift apart
  left.addEventListener("timeupdate", function () {
    if (Math.abs(left.currentTime - right.currentTime) > 0.08 && !right.seeking) { right.currentTime = left.currentTime; }
  });
  function show() {
    var done = 0;
    for (var step = 0; step < steps(); step += 1) { done += answered(step) ? 1 : 0; }
    say("who", ballot.voter);
    say("count", done + " of " + steps() + " answers");
    at("bar").value = steps() ? done / steps() : 1;
    var over = place >= steps();
    ["clips", "answers", "again"].forEach(function (id) { at(id).hidden = over; });
    at("result").hidden = !over;
    at("back").disabled = place === 0;
    if (over) { left.pause(); right.pause(); finish(); return; }
    var here = spot(place), next = ballot.items[here.number + 1];
    say("prompt", "“" + here.item.prompt + "”");
    say("question", here.question.words);
    document.querySelectorAll("[data-side]").forEach(function (button) {
      button.setAttribute("aria-pressed", String(here.item.answers[here.question.name] === button.dataset.side));
    });
    play(here.item);
    if (next) { film(next.left).catch(function () {}); film(next.right).catch(function () {}); }
  }
  function take(data) {
    if (data.error) { problem(data.error); return false; }
    ballot = data;
    problem("");
    return true;
  }
  function vote(side) {
    if (!ballot || busy || place >= steps()) { return; }
    var here = spot(place);
    busy = true;
    fetch("/vote", {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Stg-Tune-Token": ballot.token },
      body: JSON.stringify({ item: here.number, question: here.question.name, side: side }),
    }).then(function (reply) {
      if (reply.status === 403) { throw new Error("stg-tune vote was started anew: load this page again."); }
      return reply.json();
    }).then(function (data) {
      if (take(data)) { place += 1; show(); }
    }).catch(function (error) { problem("The vote was not kept: " + (error.message || error)); })
      .then(function () { busy = false; });
  }
  function back() { if (ballot && place > 0) { place -= 1; show(); } }
  function finish() {
    say("prompt", "");
    say("question", "Thank you, that was all.");
    fetch("/result", { cache: "no-store" }).then(function (reply) { return reply.json(); }).then(function (data) {
      var box = at("result");
      box.textContent = "";
      if (data.error) { box.textContent = data.error; return; }
      line(box, "Votes for: " + data.b);
      line(box, "against: " + data.a);
      data.rows.forEach(function (row) { line(box, row.words); });
    }).catch(function (error) { problem(String(error.message || error)); });
  }
  function line(box, text) {
    var paragraph = document.createElement("p");
    paragraph.textContent = text;
    box.appendChild(paragraph);
  }
  document.querySelectorAll("[data-side]").forEach(function (button) {
    button.addEventListener("click", function () { vote(button.dataset.side); button.blur(); });
  });
  at("back").addEventListener("click", back);
  at("again").addEventListener("click", restart);
  var keys = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" };
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) { return; }
    if (keys[event.key]) { event.preventDefault(); vote(keys[event.key]); }
    if (event.key === "Backspace") { event.preventDefault(); back(); }
    if (event.key === "r" || event.key === "R") { restart(); }
  });
  fetch("/ballot", { cache: "no-store" }).then(function (reply) { return reply.json(); }).then(function (data) {
    if (take(data)) { place = firstOpen(); show(); }
  }).catch(function (error) { problem(String(error.message || error)); });
})();
