"use strict";
// What the recording says: events, what stands at a path at a moment, and its bytes. Knows no page.
// A moment is a place: 0 before the first event, i just after the i-th one that the page holds.

const Model = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const count = data.events.seq.length;
  const kinds = {
    create: "make", mkdir: "make", mknod: "make", symlink: "make", link: "make", write: "write", truncate: "write",
    unlink: "drop", rmdir: "drop", rename: "move", exchange: "move", mark: "mark", gap: "bad", heal: "bad",
  };

  function duration(ns) {
    const ms = Math.floor(ns / 1e6), s = Math.floor(ms / 1000), part = "." + String(ms % 1000).padStart(3, "0");
    const two = (n) => String(n).padStart(2, "0");
    if (s >= 3600) return `${Math.floor(s / 3600)}h${two(Math.floor(s / 60) % 60)}m${two(s % 60)}${part}s`;
    return s >= 60 ? `${Math.floor(s / 60)}m${two(s % 60)}${part}s` : `${s}${part}s`;
  }

  function size(bytes) {
    let unit = 0, amount = bytes;
    while (amount >= 1024 && unit < 4) { amount /= 1024; unit++; }
    return unit ? `${amount < 99.95 ? amount.toFixed(1) : amount.toFixed(0)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}` : `${bytes} B`;
  }

  const e = data.events;
  const event = (i) => ({
    seq: e.seq[i], time: e.time[i], op: data.ops[e.op[i]], kind: kinds[data.ops[e.op[i]]] || "meta",
    path: e.path[i] < 0 ? "" : data.paths[e.path[i]], pathId: e.path[i],
    to: e.to[i] < 0 ? "" : data.texts[e.to[i]], detail: e.detail[i] < 0 ? "" : data.texts[e.detail[i]],
    pid: data.who[e.who[i]][0], comm: data.who[e.who[i]][1],
    size: e.size[i], offset: e.offset[i], trust: data.trust[e.trust[i]], count: e.count[i],
  });

  // The name of a moment as diffkeeper's commands take it: a time where that says which event, else its number.
  const name = (place) => place === 0 ? data.start : e.plain[place - 1] ? duration(e.time[place - 1]) : "e" + e.seq[place - 1];
  const seq = (place) => place === 0 ? data.first - 1 : e.seq[place - 1];
  const time = (place) => place === 0 ? 0 : e.time[place - 1];

  // What stands at a path: an index into `states`, 0 for nothing. Histories are [seq, state, seq, state, ...].
  function standing(history, at) {
    let low = 0, high = history.length / 2;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (history[2 * middle] <= at) low = middle + 1; else high = middle;
    }
    return low ? history[2 * low - 1] : 0;
  }
  const state = (id) => {
    if (!id) return null;
    const [node, version, mode, bytes, trust, target] = data.states[id];
    return { id, node, version, mode, size: bytes, trust: data.trust[trust], target: target < 0 ? null : data.texts[target] };
  };
  const at = (pathId, place) => state(standing(data.histories[pathId] || [], seq(place)));

  function files(place) {
    const now = seq(place), found = [];
    for (const key of Object.keys(data.histories)) {
      const id = standing(data.histories[key], now);
      if (id) found.push({ pathId: +key, path: data.paths[key], letter: " ", after: state(id), before: state(id) });
    }
    return found.sort(byPath);
  }

  function changes(from, to) {
    const one = seq(from), other = seq(to), found = [];
    for (const key of Object.keys(data.histories)) {
      const history = data.histories[key];
      const a = standing(history, one), b = standing(history, other);
      if (a === b) continue;
      const before = state(a), after = state(b);
      let letter = !before ? "A" : !after ? "D" : "M";
      const same = before && after && before.node === after.node && before.version === after.version && before.target === after.target;
      if (same) letter = "m";
      found.push({ pathId: +key, path: data.paths[key], letter, before, after });
    }
    return found.sort(byPath);
  }
  const byPath = (x, y) => x.path < y.path ? -1 : x.path > y.path ? 1 : 0;

  // Bytes of a node just after an event: the last time it was given whole, and what was done to it since.
  let last = null;
  function bytes(node, now) {
    const log = data.contents[node];
    if (!log) return null;
    if (last && last.node === node && last.now === now) return last.bytes;
    let begin = -1;
    for (let i = 0; i < log.length && log[i][0] <= now; i++) if (log[i][1] === 0) begin = i;
    if (begin < 0) return null;
    let most = 0;
    for (let i = begin; i < log.length && log[i][0] <= now; i++) most = Math.max(most, log[i][2] + (log[i][3] || "").length);
    const buffer = new Uint8Array(most);
    let length = 0;
    for (let i = begin; i < log.length && log[i][0] <= now; i++) {
      const [, kind, offset, text] = log[i];
      if (kind === 2) {
        if (offset < length) buffer.fill(0, offset, length);
        length = offset;
        continue;
      }
      for (let j = 0; j < text.length; j++) buffer[offset + j] = text.charCodeAt(j);
      length = kind === 0 ? text.length : Math.max(length, offset + text.length);
      if (kind === 0) buffer.fill(0, length);
    }
    last = { node, now, bytes: buffer.subarray(0, length) };
    return last.bytes;
  }

  // {text} or {why}: why there is nothing to show.
  function content(found, place) {
    if (!found) return { text: "" };
    if (found.target !== null) return { text: found.target };
    if ((found.mode & 0o170000) !== 0o100000) return { why: "Not a regular file." };
    if (found.size === 0) return { text: "" };
    const raw = bytes(found.node, seq(place));
    if (!raw) return { why: data.left[found.node] || "Its content is not in this page." };
    return { text: new TextDecoder("utf-8").decode(raw) };
  }

  return { data, count, event, name, seq, time, at, files, changes, content, duration, size };
})();
