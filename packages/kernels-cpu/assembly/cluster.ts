/**
 * k-means of many small groups, each with a table of its own: a task is a group. Seeds: `mahalanobis` (GPTVQ,
 * section 4.1) takes points evenly spaced in the order of their Mahalanobis distance from the group's
 * mean; `plus` draws each next one with a chance that follows its squared distance (k-means++).
 */

import { entrySize, packVectors, search } from './nearest'
import { take, thread } from './threads'

export function cluster(
  tables: usize,
  x: usize,
  n: i32,
  d: i32,
  groupRows: i32,
  entries: i32,
  weights: usize,
  iterations: i32,
  plus: i32,
  seed: i32,
  scratch: usize,
  room: usize,
): void {
  const side = scratch + thread * room
  const at = side + 256
  const packed = at + 64
  const sums = (packed + <usize>entries * entrySize(d) + 63) & ~63
  const keys = sums + (<usize>entries * <usize>(d + 1) << 3)
  const order = keys + (<usize>groupRows << 2)
  const stride = <usize>d << 2
  const groups = (n + groupRows - 1) / groupRows
  for (let group = take(); group < groups; group = take()) {
    const first = group * groupRows
    const count = min(groupRows, n - first)
    const points = x + <usize>first * stride
    const factors = weights ? weights + (<usize>first << 2) : 0
    const table = tables + <usize>(group * entries) * stride
    if (plus) seedPlus(table, points, count, d, entries, factors, keys, seed ^ (group * 0x9e3779b1))
    else seedSpread(table, points, count, d, entries, sums, keys, order)
    for (let iteration = 0; iteration < iterations; iteration++) {
      packVectors(packed, table, entries, d)
      memory.fill(sums, 0, <usize>entries * <usize>(d + 1) << 3)
      for (let i = 0; i < count; i += 4) {
        for (let lane = 0; lane < 4; lane++) {
          const p = points + <usize>min(i + lane, count - 1) * stride
          for (let e = 0; e < d; e++) {
            store<f32>(side + (<usize>e << 4) + (<usize>lane << 2), load<f32>(p + (<usize>e << 2)))
          }
        }
        v128.store(at, search(d, packed, entries, side))
        for (let lane = 0; lane < min(4, count - i); lane++) {
          const p = points + <usize>(i + lane) * stride
          const w: f64 = factors ? <f64>load<f32>(factors + (<usize>(i + lane) << 2)) : 1
          const code = <usize>load<i32>(at + (<usize>lane << 2))
          const out = sums + (code * <usize>(d + 1) << 3)
          for (let e = 0; e < d; e++) {
            const q = out + (<usize>e << 3)
            store<f64>(q, load<f64>(q) + w * <f64>load<f32>(p + (<usize>e << 2)))
          }
          const q = out + (<usize>d << 3)
          store<f64>(q, load<f64>(q) + w)
        }
      }
      let moved = false
      for (let c = 0; c < entries; c++) {
        const from = sums + (<usize>c * <usize>(d + 1) << 3)
        const w = load<f64>(from + (<usize>d << 3))
        if (!(w > 0)) continue
        for (let e = 0; e < d; e++) {
          const q = table + <usize>c * stride + (<usize>e << 2)
          const mean = <f32>(load<f64>(from + (<usize>e << 3)) / w)
          if (mean != load<f32>(q)) moved = true
          store<f32>(q, mean)
        }
      }
      if (!moved) break
    }
  }
}

/** Of fewer points than entries the last entries repeat the last point. */
function seedSpread(
  table: usize,
  points: usize,
  count: i32,
  d: i32,
  entries: i32,
  room: usize,
  keys: usize,
  order: usize,
): void {
  mahalanobis(points, count, d, room, keys)
  for (let i = 0; i < count; i++) store<i32>(order + (<usize>i << 2), i)
  sortByKey(order, keys, count)
  const stride = <usize>d << 2
  for (let c = 0; c < entries; c++) {
    const rank = min(count - 1, <i32>((<i64>(2 * c + 1) * <i64>count) / <i64>(2 * entries)))
    const index = <usize>load<i32>(order + (<usize>rank << 2))
    memory.copy(table + <usize>c * stride, points + index * stride, stride)
  }
}

/** keys[i] = (x − μ)·Σ⁻¹·(x − μ), by Cholesky in f64; room holds d·(d + 2) of them. */
function mahalanobis(points: usize, count: i32, d: i32, room: usize, keys: usize): void {
  const mean = room
  const v = mean + (<usize>d << 3)
  const l = v + (<usize>d << 3)
  memory.fill(mean, 0, <usize>(d * (d + 2)) << 3)
  const stride = <usize>d << 2
  for (let i = 0; i < count; i++) {
    for (let e = 0; e < d; e++) {
      const q = mean + (<usize>e << 3)
      store<f64>(q, load<f64>(q) + <f64>load<f32>(points + <usize>i * stride + (<usize>e << 2)))
    }
  }
  for (let e = 0; e < d; e++) {
    const q = mean + (<usize>e << 3)
    store<f64>(q, load<f64>(q) / <f64>count)
  }
  for (let i = 0; i < count; i++) {
    for (let a = 0; a < d; a++) {
      const p = points + <usize>i * stride
      const u = <f64>load<f32>(p + (<usize>a << 2)) - load<f64>(mean + (<usize>a << 3))
      for (let b = 0; b <= a; b++) {
        const w = <f64>load<f32>(p + (<usize>b << 2)) - load<f64>(mean + (<usize>b << 3))
        const q = l + (<usize>(a * d + b) << 3)
        store<f64>(q, load<f64>(q) + (u * w) / <f64>count)
      }
    }
  }
  let trace: f64 = 0
  for (let a = 0; a < d; a++) trace += load<f64>(l + (<usize>(a * d + a) << 3))
  for (let a = 0; a < d; a++) {
    for (let b = 0; b <= a; b++) {
      const q = l + (<usize>(a * d + b) << 3)
      let s = load<f64>(q)
      for (let m = 0; m < b; m++) {
        s -= load<f64>(l + (<usize>(a * d + m) << 3)) * load<f64>(l + (<usize>(b * d + m) << 3))
      }
      // A direction in which all points agree counts with a small deviation of its own.
      if (a == b) store<f64>(q, Math.sqrt(Math.max(s, 1e-6 * trace + 1e-30)))
      else store<f64>(q, s / load<f64>(l + (<usize>(b * d + b) << 3)))
    }
  }
  for (let i = 0; i < count; i++) {
    let square: f64 = 0
    for (let a = 0; a < d; a++) {
      const p = points + <usize>i * stride + (<usize>a << 2)
      let s = <f64>load<f32>(p) - load<f64>(mean + (<usize>a << 3))
      for (let m = 0; m < a; m++) {
        s -= load<f64>(l + (<usize>(a * d + m) << 3)) * load<f64>(v + (<usize>m << 3))
      }
      s /= load<f64>(l + (<usize>(a * d + a) << 3))
      store<f64>(v + (<usize>a << 3), s)
      square += s * s
    }
    store<f32>(keys + (<usize>i << 2), <f32>square)
  }
}

/** Indices by rising key, of equal ones the smaller index first (Shell's sort). */
function sortByKey(order: usize, keys: usize, count: i32): void {
  let gap = 1
  while (gap < count / 3) gap = 3 * gap + 1
  for (; gap > 0; gap /= 3) {
    for (let i = gap; i < count; i++) {
      const mine = load<i32>(order + (<usize>i << 2))
      const key = load<f32>(keys + (<usize>mine << 2))
      let j = i
      for (; j >= gap; j -= gap) {
        const other = load<i32>(order + (<usize>(j - gap) << 2))
        const k = load<f32>(keys + (<usize>other << 2))
        if (k < key || (k == key && other < mine)) break
        store<i32>(order + (<usize>j << 2), other)
      }
      store<i32>(order + (<usize>j << 2), mine)
    }
  }
}

/** The state of the generator (xorshift32) and one number in [0, 1) from it. */
let state: u32 = 1

function draw(): f64 {
  state ^= state << 13
  state ^= state >> 17
  state ^= state << 5
  return <f64>state / 4294967296.0
}

function seedPlus(
  table: usize,
  points: usize,
  count: i32,
  d: i32,
  entries: i32,
  weights: usize,
  keys: usize,
  seed: i32,
): void {
  state = <u32>seed | 1
  for (let i = 0; i < 4; i++) draw()
  const stride = <usize>d << 2
  let chosen = min(count - 1, <i32>(draw() * <f64>count))
  memory.copy(table, points + <usize>chosen * stride, stride)
  for (let c = 1; c <= entries; c++) {
    let total: f64 = 0
    const last = points + <usize>chosen * stride
    for (let i = 0; i < count; i++) {
      let s: f32 = 0
      for (let e: usize = 0; e < stride; e += 4) {
        const u = load<f32>(points + <usize>i * stride + e) - load<f32>(last + e)
        s += u * u
      }
      if (weights) s *= load<f32>(weights + (<usize>i << 2))
      const q = keys + (<usize>i << 2)
      const key = c == 1 ? s : min(s, load<f32>(q))
      store<f32>(q, key)
      total += <f64>key
    }
    if (c == entries) break
    let left = draw() * total
    chosen = 0
    for (let i = 0; i < count; i++) {
      const key = <f64>load<f32>(keys + (<usize>i << 2))
      if (key > 0) chosen = i
      left -= key
      if (left < 0) break
    }
    memory.copy(table + <usize>c * stride, points + <usize>chosen * stride, stride)
  }
}
