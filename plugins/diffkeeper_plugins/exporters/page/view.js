// The page: sliders, list, files, side-by-side view, keys. Recorded text goes in as text nodes only.

(() => {
  const $ = (id) => document.getElementById(id);
  const data = Model.data, last = Model.count;
  const ROW = 26, FOLD = 3, CHUNK = 1200;
  let a = 0, b = last, shown = [], files = [], chosen = null, tab = "changes";

  function make(tag, kind, text) {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    if (text !== undefined) element.textContent = visible(text);
    return element;
  }
  // What a browser would obey or hide is shown as a sign instead.
  const visible = (text) => String(text).replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f\u0080-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, (c) => `‹${c.charCodeAt(0).toString(16)}›`);

  // -- head ------------------------------------------------------------------------------------

  $("command").textContent = visible(data.command);
  $("command").title = visible(`${data.command}\nin ${data.cwd} on ${data.host}, ${data.started}`);
  for (const [text, kind] of data.facts) $("facts").append(make("li", kind, text));
  for (const note of data.notes) $("notes").append(make("div", "", note));
  document.title = visible(`DiffKeeper: ${data.command}`).slice(0, 120);

  const themes = ["auto", "light", "dark"], dark = matchMedia("(prefers-color-scheme: dark)");
  let theme = "auto";
  function paint() {
    const now = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
    document.documentElement.dataset.theme = now;
    $("theme").textContent = { auto: "◐", light: "○", dark: "●" }[theme];
    draw();
  }
  const nextTheme = () => { theme = themes[(themes.indexOf(theme) + 1) % 3]; paint(); };
  dark.addEventListener("change", paint);
  $("theme").addEventListener("click", nextTheme);
  $("help-button").addEventListener("click", () => $("help").showModal());

  // -- moments ---------------------------------------------------------------------------------

  const sliders = [["a", () => a], ["b", () => b]];
  for (const [id] of sliders) {
    $(id).max = last;
    $(id).addEventListener("input", () => slide(id === "a", +$(id).value));
  }

  function slide(before, place) {  // and the list goes along
    if (before) go(place, b); else go(a, place);
    reveal(before ? a : b);
  }

  // Show what changed from place `from` to place `to`. `path`: the file to open, where it has changed.
  function go(from, to, path) {
    const limit = (place) => Math.max(0, Math.min(last, place));
    a = limit(from); b = limit(to);
    for (const [id, place] of sliders) {
      $(id).value = place();
      const name = "@" + Model.name(place());
      $(id + "-name").textContent = `${name}  ·  ${place()} of ${last}`;
      $(id).setAttribute("aria-valuetext", name);
    }
    if (path !== undefined) chosen = path;
    draw(); list(); paths();
  }

  // How much happened when: a bar for each few pixels, marks and the two moments on top.
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const whole = Math.max(1, data.duration, last ? Model.time(last) : 1);
  const spot = (time, width) => Math.round(time / whole * (width - 1));
  function draw() {
    const canvas = $("density"), box = canvas.getBoundingClientRect(), scale = devicePixelRatio || 1;
    const width = Math.max(50, Math.round(box.width)), height = 56;
    canvas.width = width * scale; canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.fillStyle = colour("--panel"); pen.fillRect(0, 0, width, height);
    const bins = new Map(), step = 4;
    let most = 1;
    for (let i = 0; i < last; i++) {
      const bin = Math.floor(spot(data.events.time[i], width) / step);
      const one = bins.get(bin) || {};
      const kind = Model.event(i).kind;
      one[kind] = (one[kind] || 0) + 1;
      one.all = (one.all || 0) + 1;
      most = Math.max(most, one.all);
      bins.set(bin, one);
    }
    for (const [bin, one] of bins) {
      let y = height - 2;
      for (const kind of ["write", "make", "move", "drop", "meta", "mark", "bad"]) {
        if (!one[kind]) continue;
        const tall = Math.max(1, one[kind] / one.all * Math.max(3, Math.sqrt(one.all / most) * (height - 14)));
        pen.fillStyle = colour({ mark: "--accent", bad: "--bad" }[kind] || "--" + kind);
        pen.globalAlpha = 0.75;
        pen.fillRect(bin * step, y - tall, step - 1, tall);
        y -= tall;
      }
    }
    pen.globalAlpha = 1;
    pen.font = "11px " + colour("--sans");
    let free = -1e9;
    for (const [name, time] of data.marks) {
      const x = spot(time, width), text = visible(name).slice(0, 24), room = pen.measureText(text).width + 8;
      pen.fillStyle = colour("--accent");
      pen.fillRect(x, 0, 1, height);
      if (x < free) continue;
      const left = x + room > width;
      pen.textAlign = left ? "right" : "left";
      pen.fillText(text, left ? x - 4 : x + 4, 10);
      free = x + room;
    }
    for (const [place, tint] of [[a, "--a"], [b, "--accent"]]) {
      const x = spot(Model.time(place), width);
      pen.fillStyle = colour(tint);
      pen.fillRect(Math.min(width - 2, x), 0, 2, height);
    }
  }
  const placeAt = (mouse) => {
    const box = $("density").getBoundingClientRect(), time = (mouse.clientX - box.left) / (box.width - 1) * whole;
    let low = 0, high = last;
    while (low < high) { const middle = (low + high) >> 1; if (data.events.time[middle] <= time) low = middle + 1; else high = middle; }
    return low;
  };
  let dragging = false;
  const drag = (mouse) => slide(mouse.shiftKey, placeAt(mouse));
  $("density").addEventListener("pointerdown", (mouse) => { dragging = true; $("density").setPointerCapture(mouse.pointerId); drag(mouse); });
  $("density").addEventListener("pointermove", (mouse) => { if (dragging) drag(mouse); });
  $("density").addEventListener("pointerup", () => { dragging = false; });
  addEventListener("resize", () => { draw(); list(); });

  // -- events ----------------------------------------------------------------------------------

  const texts = [];  // what the filter looks at, made when it is first needed
  function textOf(i) {
    if (texts[i] === undefined) {
      const event = Model.event(i);
      texts[i] = `${event.op} ${event.path} ${event.to} ${event.comm} ${event.pid} ${event.detail} ${Model.name(i + 1)}`.toLowerCase();
    }
    return texts[i];
  }
  function wanted(words) {
    const tests = words.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
      const not = word.startsWith("-") && word.length > 1, plain = not ? word.slice(1) : word;
      const [, key, value] = /^(op|pid|path|comm):(.*)$/.exec(plain) || [];
      const test = !key ? (i) => textOf(i).includes(plain)
        : key === "op" ? (i) => value.split(",").includes(Model.event(i).op)
        : key === "pid" ? (i) => String(Model.event(i).pid) === value
        : (i) => `${Model.event(i)[key]} ${key === "path" ? Model.event(i).to : ""}`.toLowerCase().includes(value);
      return not ? (i) => !test(i) : test;
    });
    return (i) => tests.every((test) => test(i));
  }
  function filter() {
    const test = wanted($("filter").value);
    shown = [];
    for (let i = 0; i < last; i++) if (test(i)) shown.push(i);
    $("count").textContent = shown.length === last ? `${last} events` : `${shown.length} of ${last}`;
    $("rows").style.height = shown.length * ROW + "px";
    list();
  }
  const above = (place) => {  // how many shown events are at or before a place
    let low = 0, high = shown.length;
    while (low < high) { const middle = (low + high) >> 1; if (shown[middle] < place) low = middle + 1; else high = middle; }
    return low;
  };
  const size = (event) => event.size === null ? "" : event.op === "write" ? "+" + Model.size(event.size) : "=" + Model.size(event.size);

  // Only the rows that can be seen exist.
  function list() {
    const box = $("list"), first = Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
    const until = Math.min(shown.length, first + Math.ceil(box.clientHeight / ROW) + 16);
    const rows = [];
    for (let r = first; r < until; r++) {
      const i = shown[r], event = Model.event(i), row = make("div", "row");
      row.style.top = r * ROW + "px";
      row.dataset.index = i;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", i + 1 === b);
      row.classList.toggle("here", i + 1 === b);
      row.classList.toggle("there", i + 1 === a);
      row.classList.toggle("later", i + 1 > b);
      const subject = event.path ? event.path + (event.to ? ` → ${event.to}` : "") + (event.detail ? `  ${event.detail}` : "") : event.detail;
      const path = make("span", "path", event.kind === "bad" && !event.path ? `missed: ${event.detail}` : subject);
      path.title = visible(`${subject}\nevent ${event.seq}${event.trust === "exact" ? "" : `, ${event.trust}`}`);
      row.append(make("span", "at", Model.name(i + 1)), make("span", `op ${event.kind}`, event.op), path,
        make("span", "size", size(event) + (event.trust === "exact" ? "" : ` (${event.trust})`)),
        make("span", "who", event.pid ? `${event.comm}[${event.pid}]` : ""));
      rows.push(row);
    }
    $("rows").replaceChildren(...rows);
  }
  function reveal(place) {
    const box = $("list"), top = (above(place) - 1) * ROW;
    if (top < box.scrollTop || top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
  }
  $("list").addEventListener("scroll", list, { passive: true });
  $("list").addEventListener("click", (mouse) => {
    const row = mouse.target.closest(".row");
    if (!row) return;
    const i = +row.dataset.index;
    if (mouse.shiftKey) go(i + 1, b); else only(i);
  });
  $("filter").addEventListener("input", () => { filter(); reveal(b); });
  // What one event did.
  const only = (i) => { tab = "changes"; go(i, i + 1, Model.event(i).pathId); reveal(i + 1); };

  // -- files -----------------------------------------------------------------------------------

  function paths() {
    const word = $("path-filter").value.toLowerCase();
    files = (tab === "changes" ? Model.changes(a, b) : Model.files(b)).filter((file) => file.path.toLowerCase().includes(word));
    for (const name of ["changes", "files"]) $("tab-" + name).setAttribute("aria-selected", name === tab);
    $("path-count").textContent = `${files.length} ${files.length === 1 ? "file" : "files"}`;
    if (!files.some((file) => file.pathId === chosen)) chosen = files.length ? files[0].pathId : null;
    const most = 2000, rows = files.slice(0, most).map((file) => {
      const row = make("div", "file"), now = file.after || file.before;
      row.dataset.path = file.pathId;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", file.pathId === chosen);
      row.classList.toggle("here", file.pathId === chosen);
      const target = now.target === null ? "" : ` → ${now.target}`;
      const grown = file.before && file.after && tab === "changes" && file.before.size !== file.after.size;
      const sizes = grown ? `${Model.size(file.before.size)} → ${Model.size(file.after.size)}` : Model.size(now.size);
      row.append(make("span", file.letter.trim(), file.letter), make("span", "", file.path + target), make("span", "more", sizes));
      return row;
    });
    if (files.length > most) rows.push(make("div", "hint", `${files.length - most} more: write a part of the path above.`));
    if (!files.length) rows.push(make("div", "hint", tab === "changes"
      ? (a === b ? "Both moments are the same." : "No file differs between the two moments.") : "There is no file at this moment."));
    $("paths").replaceChildren(...rows);
    const here = $("paths").querySelector(".here");
    if (here) here.scrollIntoView({ block: "nearest" });
    content();
  }
  $("paths").addEventListener("click", (mouse) => {
    const row = mouse.target.closest(".file");
    if (row) { chosen = +row.dataset.path; paths(); }
  });
  $("path-filter").addEventListener("input", paths);
  for (const name of ["changes", "files"]) $("tab-" + name).addEventListener("click", () => { tab = name; paths(); });

  // -- content ---------------------------------------------------------------------------------

  function content() {
    const head = $("diff-head"), body = $("diff");
    if (chosen === null) { head.replaceChildren(); body.replaceChildren(); return; }
    const early = Math.min(a, b), late = Math.max(a, b);
    const before = Model.at(chosen, early), after = Model.at(chosen, late);
    head.replaceChildren(...[[before, early], [after, late]].map(([found, place]) => {
      const cell = make("div"), words = found
        ? `${(found.mode & 0o7777).toString(8).padStart(4, "0")}, ${Model.size(found.size)}${found.trust === "exact" ? "" : `, ${found.trust}`}` : "is not there";
      cell.append(make("b", "", "@" + Model.name(place)), `  ${visible(data.paths[chosen])}  ${words}`);
      cell.title = visible(data.paths[chosen]);
      return cell;
    }));
    body.scrollTop = 0;
    const left = Model.content(before, early), right = Model.content(after, late);
    const why = (before && left.why) || (after && right.why);
    if (why) { body.replaceChildren(make("div", "hint", why + moreOf(before, after, late))); return; }
    const rows = Diff.rows(left.text, right.text);
    if (!rows.length) { body.replaceChildren(make("div", "hint", before && after ? "Empty in both moments." : "An empty file.")); return; }
    const parts = folded(rows);
    const changed = rows.some((row) => row.kind !== "=");
    body.replaceChildren();
    if (!changed && before && after) body.append(make("div", "hint", same(before, after)));
    show(body, parts, 0, null);
    const first = body.querySelector(".add, .del");
    if (first && first.offsetTop > body.clientHeight) body.scrollTop = first.offsetTop - 60;
  }
  function same(before, after) {
    if (before.mode !== after.mode) return `The content is the same; the mode went from ${(before.mode & 0o7777).toString(8)} to ${(after.mode & 0o7777).toString(8)}.`;
    return before.version === after.version ? "The same in both moments." : "Written in between, with the same bytes.";
  }
  function moreOf(before, after, place) {
    if (before && after && before.version !== after.version) return ` It was written between the two moments. To see it: diffkeeper export --time ${Model.name(place)} --out DIRECTORY --path '…'`;
    return before && after ? " It is the same in both moments." : "";
  }

  // Rows as they are, or runs of unchanged ones to be folded.
  function folded(rows) {
    const parts = [];
    for (let i = 0; i < rows.length;) {
      let end = i;
      while (end < rows.length && rows[end].kind === "=") end++;
      const from = i ? i + FOLD : 0, to = end < rows.length ? end - FOLD : end;
      const whole = i === 0 && end === rows.length;  // nothing differs: all of it
      if (end > i && to - from > 6 && !whole) {
        parts.push(...rows.slice(i, from), { fold: rows.slice(from, to) }, ...rows.slice(to, end));
      } else parts.push(...rows.slice(i, end));
      i = end;
      while (i < rows.length && rows[i].kind !== "=") parts.push(rows[i++]);
    }
    return parts;
  }
  function show(body, parts, from, before) {
    const group = document.createDocumentFragment();
    const until = Math.min(parts.length, from + CHUNK);
    for (const part of parts.slice(from, until)) group.append(part.fold ? foldOf(part.fold) : pair(part));
    if (until < parts.length) {
      const more = make("button", "further", `${parts.length - until} more lines`);
      more.addEventListener("click", () => { const next = more.nextSibling; more.remove(); show(body, parts, until, next); });
      group.append(more);
    }
    body.insertBefore(group, before);
  }
  function foldOf(rows) {
    const button = make("button", "fold", `⋯ ${rows.length} lines that are the same`);
    button.addEventListener("click", () => { const next = button.nextSibling, body = button.parentNode; button.remove(); show(body, rows, 0, next); });
    return button;
  }
  function pair(row) {
    const element = make("div", "pair");
    const [start, end, other] = row.kind === "~" ? Diff.within(row.a[1], row.b[1]) : [0, 0, 0];
    const some = row.kind === "~" && start + (row.a[1].length - end) > 0;
    element.append(side(row.a, row.kind === "=" ? "" : "del", some ? [start, end] : null), side(row.b, row.kind === "=" ? "" : "add", some ? [start, other] : null));
    return element;
  }
  function side(line, kind, span) {
    const element = make("div", "side " + (line ? kind : "none")), text = make("span", "text");
    element.append(make("span", "no", line ? line[0] : ""), text);
    if (!line) return element;
    const open = line[1].endsWith("\u0000"), whole = open ? line[1].slice(0, -1) : line[1];
    if (span && span[1] > span[0]) {
      text.append(visible(whole.slice(0, span[0])), make("mark", "", whole.slice(span[0], span[1])), visible(whole.slice(span[1])));
    } else text.append(visible(whole));
    if (open) { const sign = make("span", "odd", " ⊘"); sign.title = "No newline at the end"; text.append(sign); }
    return element;
  }

  // -- keys ------------------------------------------------------------------------------------

  function step(by) {  // to the next or previous listed event
    const at = by > 0 ? above(b) : above(b) - 2;
    if (at >= 0 && at < shown.length) only(shown[at]);
  }
  function file(by) {
    const at = files.findIndex((one) => one.pathId === chosen) + by;
    if (at >= 0 && at < files.length) { chosen = files[at].pathId; paths(); }
  }
  const move = (by, before) => slide(before, (before ? a : b) + by);
  const copy = () => navigator.clipboard && navigator.clipboard.writeText("@" + Model.name(b));
  const tenth = Math.max(1, Math.round(last / 10));
  const keys = {
    ArrowLeft: (k) => move(-1, k.shiftKey), ArrowRight: (k) => move(1, k.shiftKey),
    PageUp: (k) => move(-tenth, k.shiftKey), PageDown: (k) => move(tenth, k.shiftKey),
    Home: (k) => move(-last, k.shiftKey), End: (k) => move(last, k.shiftKey),
    j: () => step(1), k: () => step(-1), ArrowDown: () => step(1), ArrowUp: () => step(-1),
    n: () => file(1), p: () => file(-1), s: () => go(0, b), c: copy, t: nextTheme,
    f: () => { tab = tab === "changes" ? "files" : "changes"; paths(); },
    "/": () => $("filter").focus(), "?": () => $("help").showModal(),
  };
  addEventListener("keydown", (key) => {
    if (key.ctrlKey || key.altKey || key.metaKey || $("help").open) return;
    const target = key.target, typing = target instanceof HTMLInputElement && target.type === "search";
    if (typing) { if (key.key === "Escape" || key.key === "Enter") target.blur(); return; }
    if (target instanceof HTMLInputElement && /^(Arrow|Page|Home|End)/.test(key.key)) return;  // a slider has keys of its own
    if (target === $("diff") && /^(Arrow(Up|Down)|Page|Home|End)/.test(key.key)) return;  // it scrolls
    const action = keys[key.key];
    if (action) { key.preventDefault(); action(key); }
  });

  filter();
  go(0, last);
  paint();
  list();
})();
