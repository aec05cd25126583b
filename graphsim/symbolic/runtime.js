"use strict";
// What printed formulas use: elementwise functions as numpy's, tables, and sums over a growing variable.
const max = (a, b) => b > a ? b : a, min = (a, b) => b < a ? b : a, mod = (a, b) => a - b * Math.floor(a / b);
const D = (values, by) => Float64Array.from(values, v => v / by);

// The number of the knot on the left of x, and how far x is on the way to the next one.
function cell(knots, x) {
  let low = 1, high = knots.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x < knots[middle]) high = middle; else low = middle + 1;
  }
  return low - 1;
}
function way(knots, x, i) {
  const w = (x - knots[i]) / (knots[i + 1] - knots[i]);
  return w < 0 ? 0 : w > 1 ? 1 : w;
}
function table1(values, i, w) {
  return values[i] + (values[i + 1] - values[i]) * w;
}
function table2(values, stride, i, w, j, u) {
  const at = i * stride + j, low = table1(values, at, u);
  return low + (table1(values, at + stride, u) - low) * w;
}
function table(values, strides, base, axis, places) {
  const at = base + places[2 * axis] * strides[axis], w = places[2 * axis + 1];
  if (axis === strides.length - 1) return values[at] + (values[at + 1] - values[at]) * w;
  const low = table(values, strides, at, axis + 1, places);
  return low + (table(values, strides, at + strides[axis], axis + 1, places) - low) * w;
}
function interp(knots, values, x, left, right) {
  const last = knots.length - 1;
  if (x < knots[0]) return left;
  if (x > knots[last]) return right;
  if (x === knots[last]) return values[last];
  const i = cell(knots, x);
  return (values[i + 1] - values[i]) / (knots[i + 1] - knots[i]) * (x - knots[i]) + values[i];
}

// What is refused of some inputs: of each guard that is broken its rule, what it is about, and its sentence. A function
// gives the answers of all guards, and then the numbers of their sentences.
function refusals({ inputs, answers, guards }, x) {
  const values = answers(...inputs.map(name => x[name]));
  let at = guards.length;
  const said = parts => parts.map(part => typeof part === "string" ? part : told(values[at++], part)).join("");
  return guards.map(([rule, about, parts]) => [rule, about, said(parts)]).filter((_, i) => values[i]);
}
// A number as a sentence holds it: whole, or with all its digits or six, as Python writes it.
function told(x, exact) {
  if (Number.isInteger(x)) return x.toFixed(0);
  const near = exact ? x : Number(x.toPrecision(6)), size = Math.abs(near);
  if (size >= 1e-4 && (exact || size < 1e6)) return String(near);
  return near.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
}

// Gauss quadrature for sums over whole numbers, as graphsim/symbolic/quadrature.py.
const rules = new Map();
function rule(count, nodes) {
  const key = count * 16 + nodes;
  if (rules.has(key)) return rules.get(key);
  const b = k => k * k * (count * count - k * k) / (4 * (4 * k * k - 1));
  let scale = count;
  for (let k = 1; k < nodes; k++) scale *= b(k);
  const found = [];
  for (let j = 0; j < nodes; j++) {
    let x = -count / 2 * Math.cos(Math.PI * (j + 0.75) / (nodes + 0.5)), slope, before;
    for (let turn = 0; turn < 50; turn++) {
      let p = 0, q = 1, dp = 0, dq = 0;
      for (let k = 0; k < nodes; k++) {
        const c = k ? b(k) : 0;
        [p, q, dp, dq] = [q, x * q - c * p, dq, q + x * dq - c * dp];
      }
      const step = q / dq;
      [slope, before] = [dq, p];
      x -= step;
      if (Math.abs(step) < 1e-15 * count) break;
    }
    found.push([x, scale / (slope * before)]);
  }
  if (rules.size > 4096) rules.clear();
  rules.set(key, found);
  return found;
}

// The sum of value over count whole numbers from first on; piece numbers its smooth pieces, each of which takes so many
// nodes. As graphsim/symbolic/growing_sum.py.
const FEW = 24, AT_ONCE = 1024, BUSY = 64, TURNS = 5, STRETCH = 1.3;
function total(value, piece, nodes, first, count) {
  const last = first + count - 1;
  let sum = 0, low = first;
  while (low <= last) {
    const high = nodes === 1 ? last : min(last, max(Math.floor(STRETCH * low), low + FEW - 1));
    sum += stretch(value, piece, nodes, low, high, TURNS);
    low = high + 1;
  }
  return sum;
}
function stretch(value, piece, nodes, low, high, turns) {
  if (high - low < (turns ? FEW : AT_ONCE)) return each(value, low, high);
  const middle = (low + high) / 2, here = piece(low), there = piece(middle), end = piece(high);
  if (here === there && there === end) {
    let sum = 0;
    for (const [x, weight] of rule(high - low + 1, nodes)) sum += weight * value(middle + x);
    return sum;
  }
  if (here !== there && there !== end && high - low < BUSY) return each(value, low, high);
  let same = turns ? low : Math.floor(middle), other = high, probe = Math.floor(middle);
  while (turns && other - same > 1) {
    if (piece(probe) === here) same = probe; else other = probe;
    probe = Math.floor((same + other) / 2);
  }
  const left = turns ? turns - 1 : 0;
  return stretch(value, piece, nodes, low, same, left) + stretch(value, piece, nodes, same + 1, high, left);
}
function each(value, low, high) {
  let sum = 0;
  for (let x = low; x <= high; x++) sum += value(x);
  return sum;
}
