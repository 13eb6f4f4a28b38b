(function () {
  const STEP = 1 / 24;

  function player(box) {
    const videos = Array.from(box.querySelectorAll("video"));
    const play = box.querySelector("[data-act=play]");
    const seek = box.querySelector("[data-act=seek]");
    const visible = new Set();
    let frame = STEP;
    let playing = false;
    let at = 0;
    let rate = 1;
    let shownAt = -1;

    // the first clip in sight leads, the others follow it; those out of sight rest
    function leader() {
      return videos.find((video) => visible.has(video) && video.readyState > 0);
    }

    function length() {
      const known = videos.map((video) => video.duration).filter((seconds) => seconds > 0 && isFinite(seconds));
      return known.length ? Math.min(...known) : 0;
    }

    function jump(seconds) {
      at = Math.max(0, Math.min(seconds, Math.max(length() - frame / 2, 0)));
      videos.forEach(function (video) {
        if (visible.has(video) || !playing) { video.currentTime = at; }
      });
      show();
    }

    function show() {
      const whole = length();
      const value = whole ? Math.round(1000 * at / whole) : 0;
      if (value !== shownAt) {
        shownAt = value;
        seek.value = value;
        seek.setAttribute("aria-valuetext", at.toFixed(2) + " s of " + whole.toFixed(2) + " s");
      }
    }

    function start(video) {
      video.playbackRate = rate;
      const promise = video.play();
      if (promise) { promise.catch(() => undefined); }
    }

    function set(on) {
      playing = on;
      play.textContent = on ? "pause" : "play";
      play.setAttribute("aria-pressed", String(on));
      videos.forEach((video) => (on && visible.has(video) ? start(video) : video.pause()));
      if (on) { requestAnimationFrame(tick); } else { jump(at); }
    }

    function follow(video, lead) {
      if (Math.abs(video.currentTime - lead.currentTime) > Math.max(frame / 2, 0.02) * rate && !video.seeking) {
        video.currentTime = lead.currentTime;
      }
      if (video.paused) { start(video); }
    }

    function tick() {
      if (!playing) { return; }
      const lead = leader();
      if (lead) {
        at = lead.currentTime;
        if (lead.ended || at >= length() - 0.001) {
          jump(0);
          visible.forEach(start);
        } else {
          visible.forEach((video) => video === lead ? video.paused && start(video) : follow(video, lead));
        }
        show();
      }
      requestAnimationFrame(tick);
    }

    function measureFrame(video) {
      if (!video.requestVideoFrameCallback) { return; }
      let last = -1;
      let shortest = Infinity;
      function seen(now, data) {
        if (last >= 0 && data.mediaTime > last) {
          shortest = Math.min(shortest, data.mediaTime - last);
          frame = shortest;
        }
        last = data.mediaTime;
        video.requestVideoFrameCallback(seen);
      }
      video.requestVideoFrameCallback(seen);
    }

    const acts = {
      play: () => set(!playing),
      back: () => { set(false); jump(at - frame); },
      on: () => { set(false); jump(at + frame); },
    };
    box.addEventListener("click", function (event) {
      const act = event.target.dataset.act;
      if (acts[act]) { acts[act](); }
      if (event.target.classList.contains("zoom")) {
        const wide = event.target.closest("figure").classList.toggle("wide");
        event.target.setAttribute("aria-pressed", String(wide));
        event.target.textContent = wide ? "smaller" : "enlarge";
      }
    });
    seek.addEventListener("input", function () { set(false); jump(seek.value / 1000 * length()); });
    box.querySelector("[data-act=speed]").addEventListener("change", function (event) {
      rate = Number(event.target.value);
      videos.forEach((video) => { video.playbackRate = rate; });
    });
    document.addEventListener("keydown", function (event) {
      const busy = /^(INPUT|SELECT|TEXTAREA|BUTTON|SUMMARY|A)$/.test(event.target.tagName);
      const near = box.contains(event.target) || (visible.size > 0 && event.target === document.body);
      const act = { " ": "play", ArrowLeft: "back", ArrowRight: "on" }[event.key];
      if (!act || !near || (busy && (event.key === " " || event.target.tagName !== "BUTTON"))) { return; }
      event.preventDefault();
      acts[act]();
    });
    const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    let begun = still;
    const watcher = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (entry.isIntersecting) {
          visible.add(entry.target);
          entry.target.currentTime = at;
          if (playing) { start(entry.target); }
        } else {
          visible.delete(entry.target);
          entry.target.pause();
        }
      });
      if (!begun && visible.size) { begun = true; set(true); }
    }, { threshold: 0.2 });
    videos.forEach((video) => watcher.observe(video));
    measureFrame(videos[0]);
  }

  document.querySelectorAll("[data-player]").forEach(player);
})();
