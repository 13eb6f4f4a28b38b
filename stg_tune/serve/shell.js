"use strict";
(function () {
  var shown = "", held = false, loading = null;
  function at(id) { return document.getElementById(id); }
  function say(id, text) { if (at(id).textContent !== text) { at(id).textContent = text; } }
  function clock(seconds) {
    var whole = Math.round(seconds), minutes = Math.floor(whole / 60), hours = Math.floor(minutes / 60);
    function two(number) { return String(number).padStart(2, "0"); }
    return (hours ? hours + ":" + two(minutes % 60) : minutes) + ":" + two(whole % 60) + " left";
  }
  function known(value) { return value !== null && value !== undefined; }
  function tell(state) {
    var counted = known(state.done) && state.total > 0;
    say("status", state.status === "running" && state.stage ? state.stage : state.status);
    say("count", counted ? state.done + " of " + state.total + " evaluations" : state.message);
    say("left", state.status === "running" && known(state.seconds_left) ? clock(state.seconds_left) : "");
    say("best", state.best ? "best " + state.best : "");
    var workers = known(state.workers) ? state.workers + (state.workers === 1 ? " worker" : " workers") : "";
    var running = state.status === "running" ? [workers].concat(state.current.slice(0, 3)) : [counted ? state.message : ""];
    say("current", running.filter(Boolean).join(" · "));
    at("bar").value = counted ? state.done / state.total : 0;
    problem(state.problem);
    document.title = (counted ? Math.floor((100 * state.done) / state.total) + " % " : "") + state.status + " · stg-tune";
    document.documentElement.dataset.version = shown;
    if (state.version && state.version !== shown && !held && !loading) { load(state.version); }
  }
  function problem(text) {
    say("problem", text);
    at("problem").hidden = !text;
  }
  function place(frame) {
    try { return [frame.contentWindow.scrollX, frame.contentWindow.scrollY]; } catch (error) { return [0, 0]; }
  }
  // the new page is loaded out of sight and takes the place of the old one when it is there: no flicker, same spot
  function load(version) {
    var old = document.querySelector("iframe");
    loading = document.createElement("iframe");
    loading.title = "report";
    loading.className = old ? "coming" : "";
    loading.src = "/report?" + version;
    loading.addEventListener("load", function () {
      var spot = old ? place(old) : [0, 0], focused = old && document.activeElement === old;
      loading.className = "";
      loading.contentWindow.scrollTo(spot[0], spot[1]);
      if (old) { old.remove(); }
      if (focused) { loading.focus(); }
      at("waiting").hidden = true;
      shown = document.documentElement.dataset.version = version;
      loading = null;
    });
    document.querySelector("main").appendChild(loading);
  }
  function hold() {
    held = !held;
    at("hold").setAttribute("aria-pressed", String(held));
    say("hold", held ? "follow again" : "hold the page");
  }
  at("hold").addEventListener("click", hold);
  document.addEventListener("keydown", function (event) {
    if (event.key === "p" && !event.ctrlKey && !event.metaKey && !event.altKey) { hold(); }
  });
  function ask() {
    fetch("/state", { cache: "no-store" })
      .then(function (reply) { return reply.json(); })
      .then(tell)
      .catch(function () { problem("stg-tune serve does not answer; trying again."); })
      .then(function () { setTimeout(ask, document.hidden ? 10000 : 2000); });
  }
  ask();
})();
