// Two texts, line by line (Myers), as rows of a side-by-side view. Pure.

const Diff = (() => {
  const MOST_EDITS = 1500;

  const lines = (text) => {
    if (text === "") return [];
    const found = text.split("\n");
    if (found[found.length - 1] === "") found.pop(); else found[found.length - 1] += "\u0000";  // no newline at the end
    return found;
  };

  // [kind, from a, from b, length] runs: "=" the same, "-" only in a, "+" only in b.
  function runs(a, b) {
    let head = 0, tail = 0;
    while (head < a.length && head < b.length && a[head] === b[head]) head++;
    while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
    const middle = myers(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
    const found = [];
    const push = (kind, i, j, n) => {
      const before = found[found.length - 1];
      if (!n) return;
      if (before && before[0] === kind) before[3] += n; else found.push([kind, i, j, n]);
    };
    push("=", 0, 0, head);
    for (const [kind, i, j, n] of middle) push(kind, i + head, j + head, n);
    push("=", a.length - tail, b.length - tail, tail);
    return found;
  }

  function myers(a, b) {
    const n = a.length, m = b.length, limit = Math.min(n + m, MOST_EDITS);
    if (!n || !m) return [["-", 0, 0, n], ["+", n, 0, m]];
    const reach = new Int32Array(2 * limit + 3), trail = [], middle = limit + 1;
    for (let d = 0; d <= limit; d++) {
      trail.push(reach.slice(middle - d - 1, middle + d + 2));
      for (let k = -d; k <= d; k += 2) {
        let x = k === -d || (k !== d && reach[middle + k - 1] < reach[middle + k + 1]) ? reach[middle + k + 1] : reach[middle + k - 1] + 1;
        while (x < n && x - k < m && a[x] === b[x - k]) x++;
        reach[middle + k] = x;
        if (x >= n && x - k >= m) return back(trail, n, m);
      }
    }
    return [["-", 0, 0, n], ["+", n, 0, m]];  // too different to be worth more time
  }

  function back(trail, n, m) {
    const found = [];
    let x = n, y = m;
    for (let d = trail.length - 1; d >= 0; d--) {
      const at = (k) => trail[d][k + d + 1], k = x - y;
      const previous = k === -d || (k !== d && at(k - 1) < at(k + 1)) ? k + 1 : k - 1;
      const px = d ? at(previous) : 0, py = d ? px - previous : 0;
      const start = d ? (previous === k + 1 ? px : px + 1) : 0;
      if (x > start) found.push(["=", start, start - k, x - start]);
      if (d) found.push(previous === k + 1 ? ["+", px, py, 1] : ["-", px, py, 1]);
      x = px; y = py;
    }
    return found.reverse();
  }

  // Rows: {kind, a, b} with line numbers from 1 and texts; kind "=", "-", "+" or "~" (both, changed).
  function rows(left, right) {
    const a = lines(left), b = lines(right), found = [], all = runs(a, b);
    for (let r = 0; r < all.length; r++) {
      const [kind, i, j, n] = all[r];
      if (kind === "=") {
        for (let x = 0; x < n; x++) found.push({ kind, a: [i + x + 1, a[i + x]], b: [j + x + 1, b[j + x]] });
        continue;
      }
      const next = all[r + 1];
      const both = next && next[0] !== "=" && next[0] !== kind;
      const gone = kind === "-" ? [i, n] : both ? [next[1], next[3]] : [0, 0];
      const made = kind === "+" ? [j, n] : both ? [next[2], next[3]] : [0, 0];
      if (both) r++;
      for (let x = 0; x < Math.max(gone[1], made[1]); x++) {
        const one = x < gone[1] ? [gone[0] + x + 1, a[gone[0] + x]] : null;
        const other = x < made[1] ? [made[0] + x + 1, b[made[0] + x]] : null;
        found.push({ kind: one && other ? "~" : one ? "-" : "+", a: one, b: other });
      }
    }
    return found;
  }

  // Where two lines begin and end to differ: [start, end in a, end in b].
  function within(a, b) {
    let head = 0, tail = 0;
    const most = Math.min(a.length, b.length);
    while (head < most && a[head] === b[head]) head++;
    while (tail < most - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
    return [head, a.length - tail, b.length - tail];
  }

  return { rows, within };
})();
